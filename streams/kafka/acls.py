"""Access control lists of a cluster: list, grant, remove; and which rights a client's principal lacks."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    TopicDescription,
)

from streams.acls.rights import ANY_HOST, CLUSTER_NAME, Grant, Kind, Operation, Pattern, Right
from streams.errors import StreamsError
from streams.kafka.admin import REQUEST_TIMEOUT_S, described, settled

_KINDS: Final = {
    Kind.TOPIC: ResourceType.TOPIC,
    Kind.GROUP: ResourceType.GROUP,
    Kind.TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
    Kind.CLUSTER: ResourceType.BROKER,
}
_PATTERNS: Final = {Pattern.LITERAL: ResourcePatternType.LITERAL, Pattern.PREFIXED: ResourcePatternType.PREFIXED}
_NEEDED: Final = {
    "reading ACLs": "the principal needs DESCRIBE on the cluster",
    "granting": "the principal needs ALTER on the cluster",
    "taking": "the principal needs ALTER on the cluster",
}
_NOT_TOLD: Final = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED)
_SHOWN_MAX: Final = 8
_NO_AUTHORIZER: Final = (
    "this cluster has no authorizer: every principal may do everything (broker setting authorizer.class.name)"
)


def grants(client: AdminClient) -> list[Grant]:
    """Every right that the cluster grants or denies, on kinds of resources that this product uses.

    Raises:
        StreamsError: no answer, no authorizer, or the principal may not ask.

    """
    any_one: Any = None  # what the client takes for a filter that leaves nothing out
    everything = AclBindingFilter(
        ResourceType.ANY, any_one, ResourcePatternType.ANY, any_one, any_one, AclOperation.ANY, AclPermissionType.ANY
    )
    future = client.describe_acls(everything, request_timeout=REQUEST_TIMEOUT_S)
    try:
        found: Sequence[AclBinding] = settled("reading ACLs", future)
    except StreamsError as error:
        raise _explained("reading ACLs", error, future.exception(0)) from None
    if not found:
        _require_describe(client)
    return sorted(grant for binding in found if (grant := _grant(binding)) is not None)


def grant(client: AdminClient, principal: str, rights: Iterable[Right]) -> None:
    """Grant rights to a principal from every host. One that is there already stays as it is.

    Raises:
        StreamsError: the cluster refuses one; those before it are granted.

    """
    bindings = [_binding(Grant(principal, right)) for right in rights]
    for binding, future in client.create_acls(bindings, request_timeout=REQUEST_TIMEOUT_S).items() if bindings else ():
        try:
            settled(f"granting {_right(binding)} to {principal}", future)
        except StreamsError as error:
            raise _explained("granting", error, future.exception(0)) from None


def take(client: AdminClient, taken: Iterable[Grant]) -> None:
    """Remove rights. A right that does not exist counts as removed.

    Raises:
        StreamsError: the cluster refuses one; those before it are gone.

    """
    filters = [_filter(one) for one in taken]
    for future in client.delete_acls(filters, request_timeout=REQUEST_TIMEOUT_S).values() if filters else ():
        try:
            settled("taking rights away", future)
        except StreamsError as error:
            raise _explained("taking", error, future.exception(0)) from None


def lacking(client: AdminClient, rights: Iterable[Right]) -> tuple[Right, ...]:
    """Those rights on topics that the principal of `client` lacks, according to the brokers.

    Rights on anything but topics are not looked at, nor are those on topics that are not there. Where brokers do not
    tell a principal's rights, none is taken to be lacking.

    Raises:
        StreamsError: no answer.

    """
    wanted: dict[str, list[Right]] = {}
    for right in rights:
        if right.kind is Kind.TOPIC and right.pattern is Pattern.LITERAL:
            wanted.setdefault(right.name, []).append(right)
    if not wanted:
        return ()
    asked = client.describe_topics(
        TopicCollection(sorted(wanted)), include_authorized_operations=True, request_timeout=REQUEST_TIMEOUT_S
    )
    found: list[Right] = []
    for name, future in asked.items():
        told = settled(f"asking for the rights on topic {name}", future, fine=_NOT_TOLD)
        if told is None:
            if _is_refused(future):
                found += wanted[name]
        elif told.authorized_operations is not None:
            has = {operation.name for operation in told.authorized_operations}
            found += [right for right in wanted[name] if right.operation.value not in has]
    return tuple(sorted(found))


def require(client: AdminClient, rights: Iterable[Right]) -> None:
    """Raise unless the principal has all rights on topics; otherwise as `lacking`.

    Raises:
        StreamsError: some are lacking, and which; or no answer.

    """
    if found := lacking(client, rights):
        raise StreamsError(in_words(found))


def group_in_words(group: str) -> str:
    """That a group may not be described, whose coordinator the client of a reader asks for, though it joins none."""
    return in_words((Right(Kind.GROUP, group, Pattern.LITERAL, Operation.DESCRIBE),))


def in_words(lacks: Sequence[Right]) -> str:
    """The missing rights, and the command that prints what is needed."""
    shown = ", ".join(map(str, lacks[:_SHOWN_MAX]))
    more = f" and {len(lacks) - _SHOWN_MAX} more" if len(lacks) > _SHOWN_MAX else ""
    return f"this principal lacks {shown}{more} (ACLs): `streams acls show` prints what each role needs"


def _is_refused(future: "Future[TopicDescription]") -> bool:
    """Whether a topic may not be described: it is not told whether it is there."""
    cause = future.exception(0)
    inner = cause.args[0] if isinstance(cause, KafkaException) else None
    return isinstance(inner, KafkaError) and inner.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def _require_describe(client: AdminClient) -> None:
    """Raise on an answer without any right, which only means that the principal may not ask."""
    future = client.describe_cluster(include_authorized_operations=True, request_timeout=REQUEST_TIMEOUT_S)
    may = settled("asking for the rights on the cluster", future).authorized_operations or ()
    if AclOperation.DESCRIBE not in may:
        raise StreamsError(f"reading ACLs: refused; {_NEEDED['reading ACLs']}")


def _explained(what: str, error: StreamsError, cause: BaseException | None) -> StreamsError:
    inner = cause.args[0] if isinstance(cause, KafkaException) else None
    if not isinstance(inner, KafkaError):
        return error
    if inner.code() == KafkaError.SECURITY_DISABLED:
        return StreamsError(_NO_AUTHORIZER)
    if inner.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
        return StreamsError(f"{what}: {described(KafkaException(inner))}; {_NEEDED[what]}")
    return error


def _binding(grant: Grant) -> AclBinding:
    return AclBinding(*_parts(grant))


def _filter(grant: Grant) -> AclBindingFilter:
    return AclBindingFilter(*_parts(grant))


def _parts(grant: Grant) -> tuple[ResourceType, str, ResourcePatternType, str, str, AclOperation, AclPermissionType]:
    right = grant.right
    return (
        _KINDS[right.kind],
        CLUSTER_NAME if right.kind is Kind.CLUSTER else right.name,
        _PATTERNS[right.pattern],
        grant.principal,
        grant.host,
        AclOperation[right.operation.value],
        AclPermissionType.DENY if grant.denies else AclPermissionType.ALLOW,
    )


def _grant(binding: AclBinding) -> Grant | None:
    """None: of a kind that this product has no use for, such as delegation tokens."""
    right = _right(binding)
    denies = binding.permission_type is AclPermissionType.DENY
    return None if right is None else Grant(binding.principal, right, binding.host or ANY_HOST, denies)


def _right(binding: AclBinding) -> Right | None:
    kinds = {found: kind for kind, found in _KINDS.items()}
    patterns = {found: pattern for pattern, found in _PATTERNS.items()}
    restype, named, operation = map(_member, (binding.restype, binding.resource_pattern_type, binding.operation))
    kind, pattern = kinds.get(restype), patterns.get(named)
    if kind is None or pattern is None or operation.name not in Operation.__members__:
        return None
    return Right(kind, binding.name, pattern, Operation[operation.name])


def _member(value: Any) -> Any:
    """A part of a binding, which is a member of an enum once the binding is made."""
    return value
