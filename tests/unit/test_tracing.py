"""Spans of micro-batches, sent by the real exporter to a collector that is, or is not, there."""

import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from logistics.flows.gps import GPS
from streams.batch.columns import Headers
from streams.batch.records import Records
from streams.settings import load_settings
from streams.worker.tracing import CLOSE_TIMEOUT_S, LINKS_MAX, PipelineTrace, Tracing, producers_of, tracing_of
from tests.otlp_collector import Collector

pytestmark = pytest.mark.thorough

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def records(*headers: Headers | None) -> Records:
    n = len(headers)
    zeros = np.zeros(n, dtype=np.int64)
    return Records(zeros, zeros, zeros, [b"k"] * n, [b"v"] * n, list(headers) if any(headers) else None)


def one_cycle(trace: PipelineTrace, *batches: Records) -> None:
    kept = []
    for batch in batches:
        box = object()
        kept.append(box)
        trace.received(box, batch, time.time_ns())
        with trace.processing(box):
            pass
    with trace.committing(sum(map(len, batches))):
        pass


def test_each_micro_batch_is_received_and_processed_and_committed_with_its_cycle(collector: Collector) -> None:
    tracing = Tracing(OTLPSpanExporter(collector.url, timeout=5), share=1.0)
    one_cycle(tracing.of_pipeline(GPS), records(None, [(TRACEPARENT_NAME, PARENT.encode())]), records(None))
    tracing.close()

    spans = {name: [span for span in collector.spans if span.name.startswith(name)] for name in ("rec", "pro", "com")}
    assert [2, 2, 1] == [len(found) for found in spans.values()]
    receive = next(span for span in spans["rec"] if span.links)
    process = next(span for span in spans["pro"] if span.trace_id == receive.trace_id)
    commit = spans["com"][0]
    assert ("receive gps.positions.v1", receive.span_id) == (receive.name, process.parent_span_id)
    assert [PARENT.split("-")[1]] == [link.trace_id.hex() for link in receive.links]
    assert 2 == 1 + len(commit.links), "the parent and the other micro-batch of the cycle"
    attributes = {one.key: one.value.string_value or one.value.int_value for one in receive.attributes}
    assert attributes == {
        "messaging.system": "kafka",
        "messaging.destination.name": "gps.positions.v1",
        "messaging.consumer.group.name": "streams.gps",
        "messaging.operation.name": "poll",
        "messaging.operation.type": "receive",
        "messaging.batch.message_count": 2,
    }


TRACEPARENT_NAME = "traceparent"


def test_a_commit_that_fails_says_so(collector: Collector) -> None:
    tracing = Tracing(OTLPSpanExporter(collector.url, timeout=5), share=1.0)
    trace = tracing.of_pipeline(GPS)
    box = object()
    trace.received(box, records(None), time.time_ns())
    with trace.processing(box):
        pass
    with pytest.raises(RuntimeError), trace.committing(1):
        raise RuntimeError
    tracing.close()

    commit = next(span for span in collector.spans if span.name.startswith("commit"))
    assert "RuntimeError" == commit.status.message


def test_sampling_leaves_whole_micro_batches_out(collector: Collector) -> None:
    tracing = Tracing(OTLPSpanExporter(collector.url, timeout=5), share=0.0)
    one_cycle(tracing.of_pipeline(GPS), records(None))
    tracing.close()

    assert [] == collector.spans


@pytest.mark.parametrize("endpoint", ["nobody", "silent"])
def test_a_collector_that_does_not_answer_costs_the_pipeline_nothing(endpoint: str) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as listening:
        # It listens, and nobody ever answers; port 1 refuses.
        port = listening.server_address[1] if endpoint == "silent" else 1
        tracing = Tracing(OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces", timeout=60), share=1.0)
        trace = tracing.of_pipeline(GPS)
        for _ in range(5_000):  # more than the queue holds
            one_cycle(trace, records(None))
        began = time.monotonic()
        tracing.close()

        assert time.monotonic() - began < CLOSE_TIMEOUT_S + 2.0


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"junk",
        b"00-0-0-0",
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        PARENT.encode() + b"x",
        b"\xff\xfe",
        None,
    ],
)
def test_a_header_that_is_no_trace_context_links_to_nothing(value: bytes | None) -> None:
    assert [] == producers_of([[("traceparent", value)], None, []])


def test_links_are_bounded_and_each_is_there_once() -> None:
    many: list[Headers] = [
        [("traceparent", f"00-{number:032x}-{number:016x}-01".encode())] for number in range(1, 1_000)
    ]

    assert LINKS_MAX == len(producers_of(many))
    assert 1 == len(producers_of([many[0], many[0]]))


def test_it_is_off_unless_asked_for_and_then_nothing_of_it_is_loaded() -> None:
    assert tracing_of(load_settings()) is None
    code = "import streams.worker.process, sys; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode
