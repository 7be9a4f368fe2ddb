"""The way of a request: who sends it, its body, its records, what becomes of them (`gateway.taking`), the answer."""

import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import structlog

from streams.batch.columns import Headers
from streams.gateway import avro_records, json_records
from streams.gateway.access import Access, Claim, Proved, Sender
from streams.gateway.answers import JSON, PROBLEM, Outcome, Refused, problem
from streams.gateway.bodies import Body, Budget, ClientGone, Receive
from streams.gateway.delivery import Delivers
from streams.gateway.formats import Format
from streams.gateway.letters import Origin
from streams.gateway.metrics import GatewayMetrics
from streams.gateway.records import Rows, TooManyRecords
from streams.gateway.senders import Senders
from streams.gateway.sources import Source, Sources
from streams.gateway.taking import Taking
from streams.limits import GATEWAY_BODY_S_MAX, GATEWAY_HEAD_BYTES_MAX
from streams.settings import Settings

log = structlog.get_logger(__name__)

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Scope = Mapping[str, Any]

NDJSON: Final = frozenset({b"application/x-ndjson", b"application/ndjson", b"application/jsonl"})
AVRO: Final = frozenset({b"application/avro", b"avro/binary", b"application/vnd.apache.avro"})
_UTF8: Final = frozenset({b"utf-8", b"utf8", b"us-ascii"})
IDEMPOTENCY_KEY: Final = b"idempotency-key"
IDEMPOTENCY_KEY_BYTES_MAX: Final = 256
NAMESPACE: Final = uuid.UUID("0f6b7f0e-3f0b-5a3e-9a53-5d7b5ad2f6c1")
"""Name space of event ids that come of an Idempotency-Key: never change it, or a sender's retry is another event."""
_TRACE: Final = b"traceparent"
_TRACE_BYTES: Final = 55


class EventService:
    """`POST /v1/events/{source}` as an ASGI application. Of one event loop."""

    def __init__(
        self,
        settings: Settings,
        sources: Sources,
        access: Access,
        delivery: Delivers,
        senders: Senders,
        formats: Mapping[str, Format],
        metrics: GatewayMetrics,
        *,
        now_ms: Callable[[], int],
        body_s_max: float = GATEWAY_BODY_S_MAX,
    ) -> None:
        self._body_s_max = body_s_max
        self._sources, self._access, self._senders = sources, access, senders
        self._formats, self._metrics = formats, metrics
        self._body_bytes_max = settings.streams_gateway_body_bytes_max
        self._record_bytes_max = settings.streams_record_bytes_max
        self._taking = Taking(sources, delivery, metrics, record_bytes_max=self._record_bytes_max, now_ms=now_ms)
        self.budget = Budget()
        self._count_requests = {
            (name, status): metrics.requests.labels(name, status)
            for name in sources.by_name
            for status in (HTTPStatus.ACCEPTED.value, HTTPStatus.UNPROCESSABLE_ENTITY.value)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.monotonic()
        name = scope["path_params"]["source"]
        source = self._sources.by_name.get(name)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        body = Body(self.budget, bytes_max=self._body_bytes_max, seconds_max=self._body_s_max)
        shown = name if source is not None else "(unknown)"
        try:
            status, content, kind, extra = await self._handled(scope, source, headers, body, receive)
        except Refused as refused:
            self._metrics.refusals.labels(shown, refused.kind).inc()
            status, content, extra = problem(refused)
            kind = PROBLEM
        except ClientGone:
            self._metrics.refusals.labels(shown, "gone").inc()
            return
        finally:
            body.release()
        counter = self._count_requests.get((name, status))
        (counter if counter is not None else self._metrics.requests.labels(shown, status)).inc()
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", kind), (b"content-length", str(len(content)).encode()), *extra],
            }
        )
        await send({"type": "http.response.body", "body": content})
        self._metrics.request_seconds.observe(time.monotonic() - started)

    async def _handled(
        self, scope: Scope, source: Source | None, headers: Mapping[bytes, bytes], body: Body, receive: Receive
    ) -> tuple[int, bytes, bytes, list[tuple[bytes, bytes]]]:
        """Status, content, its type, and headers of the answer."""
        if sum(len(name) + len(value) for name, value in scope["headers"]) > GATEWAY_HEAD_BYTES_MAX:
            words = f"the headers have more than {GATEWAY_HEAD_BYTES_MAX} bytes"
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, words, kind="too_large")
        if source is None:
            raise Refused(
                HTTPStatus.NOT_FOUND, f"there is no such source: there is {', '.join(self._sources.by_name)}",
                kind="unknown_source",
            )  # fmt: skip
        client = scope.get("client")
        who = self._access.admit(source.name, headers, None if client is None else client[0])
        format_ = self._format(scope, source)
        _ = source.batcher  # refuses what cannot be handled before the body is read
        sent = await body.read(receive, declared=headers.get(b"content-length"))
        proved = self._access.prove(who, sent) if isinstance(who, Claim) else None
        sender = proved.sender if proved is not None else who
        assert isinstance(sender, Sender)  # noqa: S101 - a claim was proved
        try:
            content = body.unpacked(sent, headers.get(b"content-encoding", b""))
            outcome = await self._taken(source, sender, format_, scope, headers, content)
        except BaseException:
            self._forget(proved)
            raise
        if format_ is not None:
            return _answer_of(format_, outcome)
        minimal = b"return=minimal" in headers.get(b"prefer", b"")
        return outcome.status.value, outcome.body(minimal=minimal), JSON, []

    def _forget(self, proved: Proved | None) -> None:
        if proved is not None:
            self._access.forget(proved)

    def _format(self, scope: Scope, source: Source) -> Format | None:
        query = scope["query_string"]
        if b"format=" not in query:
            return None
        name = dict(parse_qsl(query.decode("latin-1"))).get("format", "")
        found = self._formats.get(name)
        if found is None:
            words = f"there is no format {name[:40]!r}: there is {', '.join(sorted(self._formats))}"
            raise Refused(HTTPStatus.NOT_FOUND, words, kind="unknown_format")
        if not found.fields.keys() <= source.names:
            others = ", ".join(sorted(found.fields.keys() - source.names))
            words = f"{found.title} gives {others}, which {source.name} does not have"
            raise Refused(HTTPStatus.NOT_FOUND, words, kind="unknown_format")
        return found

    # --- records ----------------------------------------------------------------------------------------------------

    async def _taken(
        self,
        source: Source,
        sender: Sender,
        format_: Format | None,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        content: bytes,
    ) -> Outcome:
        """Have everything of a request acknowledged, events and dead letters."""
        self._senders.check_pause(source.name, sender.id)
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        try:
            if format_ is not None:
                found = format_.read(content, headers, scope["query_string"], self._record_bytes_max)
            else:
                found = self._rows(kind, headers, content)
        except TooManyRecords as error:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error), kind="too_large") from None
        self._senders.check_rate(source.name, sender.id, max(1, len(found.rows)))
        origin = Origin(sender.name, kind.decode("latin-1")[:100], "" if format_ is None else format_.name)
        trace = _trace(headers)
        if format_ is None and kind in AVRO and not avro_records.is_container(content):
            outcome = await self._taking.framed(source, content, origin, trace=trace)
        else:
            ids = self._fallback_ids(source, headers)
            outcome = await self._taking.rows(source, found, origin, ids=ids, format_=format_, trace=trace)
        if outcome.event_ids:
            self._senders.report(source.name, sender.id, had_events=outcome.accepted > 0)
        return outcome

    def _rows(self, kind: bytes, headers: Mapping[bytes, bytes], content: bytes) -> Rows:
        if kind in AVRO:
            if avro_records.is_container(content):
                return avro_records.container(content, self._body_bytes_max)
            return Rows([{}], lambda _: content)
        charset = _charset(headers.get(b"content-type", b""))
        if charset and charset not in _UTF8:
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "JSON is read as UTF-8 only", kind="encoding")
        if kind == JSON:
            return json_records.one_or_many(content, self._record_bytes_max)
        if kind in NDJSON:
            return json_records.lines(content, self._record_bytes_max)
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Content-Type is application/json, application/x-ndjson or application/avro",
            kind="content_type",
        )

    def _fallback_ids(self, source: Source, headers: Mapping[bytes, bytes]) -> Callable[[int], str] | None:
        """What gives ids to records that have none, by their position: the key of the request, where it has one."""
        key = headers.get(IDEMPOTENCY_KEY)
        if not key:
            return None
        if len(key) > IDEMPOTENCY_KEY_BYTES_MAX:
            words = f"Idempotency-Key has more than {IDEMPOTENCY_KEY_BYTES_MAX} bytes"
            raise Refused(HTTPStatus.BAD_REQUEST, words, kind="idempotency_key")
        begin = f"{source.name}\n{key.decode('latin-1')}\n"
        return lambda index: str(uuid.uuid5(NAMESPACE, f"{begin}{index}"))


def _answer_of(format_: Format, outcome: Outcome) -> tuple[int, bytes, bytes, list[tuple[bytes, bytes]]]:
    """What the device of a format wants to be answered."""
    answer = format_.answer
    if outcome.rejections and answer.rejected_status is None:
        return outcome.status.value, outcome.body(minimal=True), JSON, []
    status = answer.rejected_status if outcome.rejections else answer.status
    content = outcome.body(minimal=True) if answer.body is None else answer.body.encode()
    return outcome.status.value if status is None else status, content, JSON, []


def _charset(content_type: bytes) -> bytes:
    for part in content_type.split(b";")[1:]:
        name, _, value = part.strip().partition(b"=")
        if name.strip().lower() == b"charset":
            return value.strip().strip(b'"').lower()
    return b""


def _trace(headers: Mapping[bytes, bytes]) -> Headers | None:
    """The W3C trace context of the request, for the header by which workers link to their producers."""
    found = headers.get(_TRACE)
    return [("traceparent", found)] if found is not None and len(found) == _TRACE_BYTES else None
