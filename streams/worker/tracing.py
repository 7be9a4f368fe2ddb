"""OpenTelemetry spans of micro-batches: receive, process, commit, by the semantic conventions for messaging.

Off by default: then nothing of OpenTelemetry is imported, and the flow pays one comparison with None per
micro-batch. When it is on, spans go into a bounded queue that a thread of the SDK empties: when the collector does not
answer, spans are dropped and the flow never waits. The span of a micro-batch links to the producers' spans that its
records name in their `traceparent` headers (W3C Trace Context), at most `LINKS_MAX` of them.
"""

import importlib.util
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final

from streams import __version__
from streams.batch.columns import Headers
from streams.batch.records import Records
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.logs import OncePerMinute
from streams.settings import Settings

LINKS_MAX: Final = 32
"""Links of one span."""
BATCHES_MAX: Final = 1_024
"""Micro-batches whose spans are remembered until they are committed."""
CLOSE_TIMEOUT_S: Final = 3.0
"""How long a worker that stops waits for the collector."""
TRACEPARENT: Final = "traceparent"
_TRACEPARENT: Final = re.compile(rb"^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")


def tracing_of(settings: Settings) -> "Tracing | None":
    """Tracing as configured; None: it is off.

    Raises:
        StreamsError: it is on, and OpenTelemetry is not installed.

    """
    if settings.streams_tracing == "off":
        return None
    if importlib.util.find_spec("opentelemetry.exporter") is None:
        raise StreamsError("STREAMS_TRACING=otlp needs OpenTelemetry: pip install 'streams[tracing]', or set it to off")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal"):
        logging.getLogger(name).addFilter(OncePerMinute())
    return Tracing(OTLPSpanExporter(), share=settings.streams_tracing_share)


def producers_of(headers: Iterable[Headers | None]) -> list[tuple[int, int, int]]:
    """(Trace, span, flags) of the producers that records name, each once; malformed headers are ignored."""
    found: OrderedDict[tuple[int, int, int], None] = OrderedDict()
    for header in headers:
        for name, value in header or ():
            if name != TRACEPARENT or value is None:
                continue
            match = _TRACEPARENT.match(value if isinstance(value, bytes) else value.encode())
            if match and int(match[1], 16) and int(match[2], 16):
                found[int(match[1], 16), int(match[2], 16), int(match[3], 16)] = None
                if len(found) >= LINKS_MAX:
                    return list(found)
    return list(found)


class Tracing:
    """Spans of one process; `share` is the share of micro-batches that is sampled."""

    def __init__(self, exporter: Any, *, share: float) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

        resource = Resource.create({"service.name": "streams-worker", "service.version": __version__})
        self._provider = TracerProvider(sampler=TraceIdRatioBased(share), resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=2_048, schedule_delay_millis=1_000)
        )
        self._tracer = self._provider.get_tracer("streams", __version__)

    def of_pipeline(self, pipeline: Pipeline) -> "PipelineTrace":
        """Spans of one flow."""
        return PipelineTrace(self._tracer, topic=pipeline.source, group=pipeline.group)

    def close(self) -> None:
        """Send the remaining spans, if the collector takes them within CLOSE_TIMEOUT_S."""
        thread = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        thread.start()
        thread.join(CLOSE_TIMEOUT_S)


class PipelineTrace:
    """Spans of each micro-batch: `received` on the event loop, `processing` and `committing` in their threads."""

    def __init__(self, tracer: Any, *, topic: str, group: str) -> None:
        from opentelemetry import trace

        self._api = trace
        self._tracer = tracer
        self._topic = topic
        self._attributes = {
            "messaging.system": "kafka",
            "messaging.destination.name": topic,
            "messaging.consumer.group.name": group,
        }
        self._received: OrderedDict[int, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._processed: list[Any] = []

    def received(self, batch: object, records: Records, started_ns: int) -> None:
        """Record a poll that began at `started_ns` and returned `records`, which are processed as `batch`."""
        links = [
            self._api.Link(self._api.SpanContext(trace, span, is_remote=True, trace_flags=self._api.TraceFlags(flags)))
            for trace, span, flags in producers_of(records.headers or ())
        ]
        span = self._start("receive", "poll", None, started_ns, links)
        span.set_attribute("messaging.batch.message_count", len(records))
        span.end()
        with self._lock:
            self._received[id(batch)] = (span.get_span_context(), len(records))
            while len(self._received) > BATCHES_MAX:
                self._received.popitem(last=False)

    @contextmanager
    def processing(self, batch: object) -> Generator[None]:
        """Record the guarded block as the processing of `batch`; nothing is recorded when it fails."""
        started_ns = time.time_ns()
        yield
        with self._lock:
            context, count = self._received.pop(id(batch), (None, 0))
        if context is None:
            return
        span = self._start("process", "process", context, started_ns, [])
        span.set_attribute("messaging.batch.message_count", count)
        span.end()
        with self._lock:
            if len(self._processed) < BATCHES_MAX:
                self._processed.append(span.get_span_context())

    @contextmanager
    def committing(self, records: int) -> Generator[None]:
        """Record the guarded block as the commit of everything processed since the last commit."""
        with self._lock:
            contexts, self._processed = self._processed, []
        sampled = [context for context in contexts if context.trace_flags.sampled]
        started_ns = time.time_ns()
        failed: str | None = None
        try:
            yield
        except BaseException as error:
            failed = type(error).__name__
            raise
        finally:
            if sampled:
                links = [self._api.Link(context) for context in sampled[1 : LINKS_MAX + 1]]
                span = self._start("commit", "settle", sampled[0], started_ns, links)
                span.set_attribute("messaging.batch.message_count", records)
                if failed is not None:
                    span.set_attribute("error.type", failed)
                    span.set_status(self._api.Status(self._api.StatusCode.ERROR, failed))
                span.end()

    def _start(self, name: str, kind: str, parent: Any, started_ns: int, links: list[Any]) -> Any:
        context = None
        if parent is not None:
            context = self._api.set_span_in_context(self._api.NonRecordingSpan(parent))
        operation = "receive" if kind == "poll" else kind
        return self._tracer.start_span(
            f"{name} {self._topic}",
            context=context,
            kind=self._api.SpanKind.CLIENT if kind == "settle" else self._api.SpanKind.CONSUMER,
            attributes={
                **self._attributes, "messaging.operation.name": name if kind != "poll" else "poll",
                "messaging.operation.type": operation,
            },
            links=links,
            start_time=started_ns,
        )  # fmt: skip
