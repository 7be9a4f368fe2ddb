"""Access control lists of a cluster: read, added to, taken from."""

from collections.abc import Iterable, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
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
_NO_AUTHORIZER: Final = (
    "this cluster has no authorizer: every principal may do everything (broker setting authorizer.class.name)"
)


def grants(client: AdminClient) -> list[Grant]:
    """Every right that the cluster grants or denies, on kinds of resources that this product uses.

    Raises:
        StreamsError: no answer, no authorizer, or the principal may not ask.

    """
    everything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    future = client.describe_acls(everything, request_timeout=REQUEST_TIMEOUT_S)
    try:
        found: Sequence[AclBinding] = settled("reading ACLs", future)
    except StreamsError as error:
        raise _explained("reading ACLs", error, future.exception(0)) from None
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
    """Take rights away. One that is not there is none the less gone.

    Raises:
        StreamsError: the cluster refuses one; those before it are gone.

    """
    filters = [_filter(one) for one in taken]
    for future in client.delete_acls(filters, request_timeout=REQUEST_TIMEOUT_S).values() if filters else ():
        try:
            settled("taking rights away", future)
        except StreamsError as error:
            raise _explained("taking", error, future.exception(0)) from None


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
    kind, pattern = kinds.get(binding.restype), patterns.get(binding.resource_pattern_type)
    if kind is None or pattern is None or binding.operation.name not in Operation.__members__:
        return None
    return Right(kind, binding.name, pattern, Operation[binding.operation.name])
