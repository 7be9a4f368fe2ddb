"""The monitor over a real worker and real traffic: page, API, metrics, runbooks, dashboards."""

import gzip
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import NewTopic
from playwright.sync_api import Browser, Page, sync_playwright
from prometheus_client.parser import text_string_to_metric_families

from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from streams.flow.discover import select_pipelines
from streams.kafka.topics import apply_topics
from streams.local.stack import Stack
from streams.monitor.exposition import MONITOR_METRICS
from streams.monitor.web.live import READERS_MAX
from tests.integration.gateway import Gateway
from tests.integration.kafka_helpers import admin_of, committed_records, delete_topics, log_end
from tests.integration.monitors import Monitor, asked, monitor_over, prometheus_over
from tests.integration.workers import Traffic, fresh_world, rough_shape, wait_until, workers
from tests.left_out import chromium
from tests.otlp_collector import Collector

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
WIDE = "monitor-wide"
PARTITIONS_WIDE = 1_000
PHONE: Any = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """What the worker sends its spans to."""
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def monitor(stack: Stack, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitor]:
    """A monitor, a worker that keeps up with traffic, and a group of 1,000 partitions that nobody reads."""
    directory = tmp_path_factory.mktemp("monitor")
    fresh_world(stack)
    with workers(stack, directory, "m") as (worker,), Traffic(stack, rough_shape(stack), seed=7, records_per_s=300):
        traced = {"STREAMS_TRACING": "otlp", "STREAMS_TRACING_SHARE": "1"}
        endpoint = collector.url.removesuffix("/v1/traces")
        worker.start({**traced, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}).wait_ready()
        a_wide_group(stack)
        with monitor_over(stack, worker, directory) as running:
            wait_until(lambda: status_of(running, "streams.gps") == "OK", "the pipeline's group is OK", timeout_s=90)
            yield running
    delete_topics(admin_of(stack), {WIDE})  # a broker that has to load it starts slowly


def a_wide_group(stack: Stack) -> None:
    client = admin_of(stack)
    if WIDE in client.list_topics(timeout=10).topics:
        return
    client.create_topics([NewTopic(WIDE, PARTITIONS_WIDE, 1)])[WIDE].result(60)
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": WIDE})
    offsets = [TopicPartition(WIDE, partition, 0) for partition in range(PARTITIONS_WIDE)]

    def is_made() -> bool:  # a topic just created is listed a moment later, and its partitions another
        made = client.list_topics(timeout=10).topics.get(WIDE)
        return made is not None and len(made.partitions) == PARTITIONS_WIDE

    wait_until(is_made, "the wide topic is there")
    consumer.commit(offsets=offsets, asynchronous=False)
    consumer.close()


def status_of(monitor: Monitor, group: str) -> str | None:
    status, text = monitor.get(f"/v3/kafka/local/consumer/{group}/status")
    return json.loads(text)["status"]["status"] if status == 200 else None


# --- API and metrics --------------------------------------------------------------------------------------------------


def test_burrows_api_tells_our_verdicts(monitor: Monitor) -> None:
    assert ["local"] == monitor.json("/v3/kafka")["clusters"]
    assert {"streams.gps", WIDE} <= set(monitor.json("/v3/kafka/local/consumer")["consumers"])
    assert "gps.positions.v1" in monitor.json("/v3/kafka/local/topic")["topics"]
    assert 3 == len(monitor.json("/v3/kafka/local/topic/gps.positions.v1")["offsets"])
    assert monitor.json("/v3/kafka/local/consumer/streams.gps")["topics"]["gps.positions.v1"][0]["offsets"]
    told = monitor.json("/v3/kafka/local/consumer/streams.gps/lag")

    assert (False, "consumer status returned") == (told["error"], told["message"])
    assert "/v3/kafka/local/consumer/streams.gps/lag" == told["request"]["url"]
    status = told["status"]
    assert ("local", "streams.gps", "OK", 3) == tuple(
        status[name] for name in ("cluster", "group", "status", "partition_count")
    )
    assert sum(row["current_lag"] for row in status["partitions"]) == status["totallag"]
    assert {"topic", "partition", "owner", "status", "start", "end", "current_lag", "complete"} <= status[
        "maxlag"
    ].keys()
    assert [] == monitor.json("/v3/kafka/local/consumer/streams.gps/status")["status"]["partitions"]


@pytest.mark.parametrize(
    "path",
    [
        "/v3/kafka/elsewhere/consumer",
        "/v3/kafka/local/consumer/no-such-group",
        "/v3/kafka/local/topic/no-such-topic",
        "/api/groups/no-such-group",
        "/runbooks/no-such-runbook",
        "/runbooks/..%2fREADME",
        "/static/..%2fwatcher.py",
        "/static/../watcher.py",
    ],
)
def test_what_is_not_there_is_not_found(monitor: Monitor, path: str) -> None:
    assert 404 == monitor.get(path)[0]


@pytest.mark.parametrize("name", ["a/b", 'q"uote\\', "new\nline", "Größe-🚚", "per%20cent", "ends/lag"])
def test_a_group_may_have_any_name(stack: Stack, monitor: Monitor, name: str) -> None:
    consumer = Consumer({"bootstrap.servers": stack.bootstrap_servers, "group.id": name, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition("gps.positions.v1", 0, 1)], asynchronous=False)
    consumer.close()
    quoted = urllib.parse.quote(name, safe="")
    wait_until(lambda: status_of(monitor, quoted), f"{name!r} is found")

    assert name == monitor.json(f"/v3/kafka/local/consumer/{quoted}/lag")["status"]["group"]
    assert name == monitor.json(f"/api/groups/{quoted}")["group"]
    families = text_string_to_metric_families(monitor.get("/metrics")[1])
    assert name in {sample.labels.get("group") for family in families for sample in family.samples}
    client = admin_of(stack)
    client.delete_consumer_groups([name])[name].result(20)


def test_dead_letters_are_counted_by_letters_and_not_by_offsets(stack: Stack, monitor: Monitor) -> None:
    def told() -> dict[str, Any]:
        overview = monitor.json("/api/overview")
        return next((one for one in overview["dead_letters"] if one["topic"] == "gps.positions.v1.dlq"), {})

    # Traffic goes on, and with it the count: it lies between what is there before and after.
    before = len(committed_records(stack, "gps.positions.v1.dlq"))
    wait_until(lambda: told().get("letters", 0) >= max(before, 1), "letters are counted")
    counted = told()["letters"]
    assert counted <= len(committed_records(stack, "gps.positions.v1.dlq")) < log_end(stack, "gps.positions.v1.dlq")


def test_a_group_that_is_not_there_has_the_status_notfound(monitor: Monitor) -> None:
    status, text = monitor.get("/v3/kafka/local/consumer/no-such-group/status")

    assert (404, "NOTFOUND") == (status, json.loads(text)["status"]["status"])


def test_nothing_can_be_changed(monitor: Monitor) -> None:
    for path in ("/v3/kafka/local/consumer/streams.gps", "/api/overview", "/"):
        connection = http.client.HTTPConnection("127.0.0.1", monitor.port, timeout=10)
        connection.request("DELETE", path)
        assert 405 == connection.getresponse().status
        connection.close()


def test_metrics_have_the_names_and_labels_that_alerts_rely_on(monitor: Monitor) -> None:
    families = {one.name: one for one in text_string_to_metric_families(monitor.get("/metrics")[1])}
    samples = [sample for family in families.values() for sample in family.samples]
    labels = {sample.name: sample.labels.keys() for sample in samples}

    for name in ("kafka_consumergroup_group_lag", "kafka_consumergroup_group_lag_seconds", "streams_lag_status"):
        assert {"group", "topic", "partition"} == labels[name]
    for name in ("max_lag", "max_lag_seconds", "sum_lag"):
        assert {"group"} == labels[f"kafka_consumergroup_group_{name}"]
    assert {"topic", "partition"} == labels["kafka_partition_latest_offset"]
    assert {"source"} == labels["streams_source_freshness_seconds"] == labels["streams_source_silent"]
    only_where_one_is = {
        "streams_open_transaction_seconds", "streams_open_transaction_records", "streams_topic_missing",
        "streams_growth_partitions", "streams_growth_done_partitions", "streams_growth_waiting_partitions",
        "streams_growth_still_seconds", "streams_notifications_total", "streams_notification_target_down",
    }  # fmt: skip
    assert {metric.name for metric in MONITOR_METRICS} - only_where_one_is <= labels.keys()
    ages = [sample.value for sample in samples if sample.name == "streams_source_freshness_seconds"]
    # The traffic is that of two hours ago, played now.
    assert all(7_000 < age < 8_000 for age in ages), ages
    ours = {
        sample.labels["partition"]: sample.value
        for sample in samples
        if sample.name == "streams_lag_status" and sample.labels["group"] == "streams.gps"
    }
    assert {"0": 1.0, "1": 1.0, "2": 1.0} == ours


def test_live_data_comes_without_asking_again(monitor: Monitor) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", monitor.port, timeout=20)
    connection.request("GET", f"/api/live?group={WIDE}")
    answer = connection.getresponse()
    times: list[dict[str, Any]] = []
    partitions: list[dict[str, Any]] = []
    while len(times) < 3:
        line = answer.readline().decode()
        if line.startswith("event: "):
            told = json.loads(answer.readline().decode().removeprefix("data: "))
            (times if line == "event: overview\n" else partitions).append(told)
    connection.close()

    assert "text/event-stream" in str(answer.getheader("Content-Type"))
    assert times[0]["time"] < times[1]["time"] < times[2]["time"]
    assert PARTITIONS_WIDE == len(partitions[0]["lag"]) == len(partitions[0]["history"])
    assert "history" not in partitions[1], "only once: the page keeps its own"


def compressed(monitor: Monitor, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", monitor.port, timeout=20)
    connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
    return connection.getresponse()


@pytest.mark.parametrize("path", ["/", "/static/monitor.js", "/metrics", "/api/overview", f"/api/groups/{WIDE}"])
def test_what_is_large_is_compressed(monitor: Monitor, path: str) -> None:
    answer = compressed(monitor, path)
    body = answer.read()

    assert (200, "gzip") == (answer.status, answer.getheader("Content-Encoding"))
    assert len(gzip.decompress(body)) > 2 * len(body)


def test_live_data_is_compressed_and_comes_at_once_all_the_same(monitor: Monitor) -> None:
    answer = compressed(monitor, f"/api/live?group={WIDE}")
    assert "gzip" == answer.getheader("Content-Encoding")
    inflate, text = zlib.decompressobj(31), b""
    overviews: list[bytes] = []
    received, began = 0, time.monotonic()
    while len(overviews) < 3 and time.monotonic() - began < 20:
        part = answer.read1(65_536)
        received += len(part)
        text += inflate.decompress(part)
        overviews = re.findall(rb"event: overview\ndata: (.*)\n\n", text)

    times = [json.loads(each)["time"] for each in overviews]
    assert times == sorted(set(times))
    assert received * 4 < len(text)


def test_a_reader_that_leaves_at_once_does_not_keep_its_place(monitor: Monitor) -> None:
    for _ in range(READERS_MAX + 50):
        connection = socket.create_connection(("127.0.0.1", monitor.port), timeout=10)
        connection.sendall(b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()  # with a reset
    wait_until(lambda: compressed(monitor, "/api/live").status == 200, "there is room for others", timeout_s=30)


def test_a_dead_letter_topic_that_is_missing_takes_no_other_away(
    stack: Stack, monitor: Monitor, tmp_path: Path
) -> None:
    def told() -> set[str]:
        return set(re.findall(r'streams_dead_letters_oldest_open_seconds{topic="([^"]+)"', monitor.get("/metrics")[1]))

    wait_until(lambda: {GPS.dlq, ORDERS.dlq} <= told(), "both are told", timeout_s=30)
    delete_topics(admin_of(stack), {ORDERS.dlq})
    with monitor_over(stack, monitor.worker, tmp_path) as another:
        wait_until(lambda: GPS.dlq in another.get("/metrics")[1], "the other one is told", timeout_s=30)
        assert 'streams_monitor_panel_age_seconds{panel="/dead-letters"}' in another.get("/metrics")[1]
    apply_topics(admin_of(stack), select_pipelines(None))


def test_it_stops_at_once_with_a_reader_still_connected(stack: Stack, monitor: Monitor, tmp_path: Path) -> None:
    with monitor_over(stack, monitor.worker, tmp_path) as another:
        connection = http.client.HTTPConnection("127.0.0.1", another.port, timeout=20)
        connection.request("GET", "/api/live")
        connection.getresponse().readline()
        another.process.send_signal(signal.SIGTERM)

        assert another.process.wait(10) == 0
        connection.close()
        assert "Traceback" not in another.log.read_text()


def test_the_commands_in_the_runbooks_work(stack: Stack, monitor: Monitor) -> None:
    found: dict[str, Path] = {}
    for path in sorted((ROOT / "docs/runbooks").glob("*.md")):
        for block in re.findall(r"^ *```sh\n(.*?)^ *```$", path.read_text(), re.DOTALL | re.MULTILINE):
            found.setdefault(block.strip(), path)
    assert len(found) > 15
    environment = {
        **os.environ,
        **stack.environment(),
        "MONITOR": monitor.url,
        "WORKER": f"http://127.0.0.1:{monitor.worker.port}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    running = {
        command: subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=ROOT,
        )
        for command in found
    }  # fmt: skip
    for command, process in running.items():
        out, err = process.communicate(timeout=90)
        assert process.returncode in {0, 100}, f"{found[command].name}: {command}\n{out}{err}"
        assert out.strip(), f"{found[command].name}: {command} prints nothing"
        assert '"error":true' not in out, f"{found[command].name}: {command}\n{out}"


# --- tracing ----------------------------------------------------------------------------------------------------------


def test_the_workers_spans_arrive_and_their_collector_may_go(monitor: Monitor, collector: Collector) -> None:
    def kinds() -> set[str]:
        return {span.name.split()[0] for span in list(collector.spans)}

    wait_until(lambda: {"receive", "process", "commit"} <= kinds(), "spans of all three kinds")
    spans = {span.span_id: span for span in list(collector.spans)}
    commit = next(span for span in spans.values() if span.name.startswith("commit") and span.parent_span_id in spans)
    process = spans[commit.parent_span_id]
    receive = spans[process.parent_span_id]
    assert ["receive", "process"] == [span.name.split()[0] for span in (receive, process)]
    assert receive.start_time_unix_nano <= process.start_time_unix_nano <= commit.start_time_unix_nano

    collector.is_broken = True
    before = monitor.worker.metric("streams_commit_seconds_count")
    wait_until(lambda: monitor.worker.metric("streams_commit_seconds_count") > before + 20, "it goes on without")
    assert status_of(monitor, "streams.gps") == "OK"


# --- Prometheus and Grafana -------------------------------------------------------------------------------------------


@pytest.mark.promtool
def test_every_query_of_the_dashboards_finds_something(monitor: Monitor, tmp_path: Path) -> None:
    queries = {
        re.sub(r"\$\w+", ".*", target["expr"].replace("$__rate_interval", "1m")): f"{path.stem}: {panel['title']}"
        for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    }
    assert len(queries) > 25
    with prometheus_over(monitor, tmp_path) as prometheus:
        wait_until(lambda: asked(prometheus, "streams:slo_budget_left:month"), "rules are evaluated", timeout_s=60)
        empty = dict(queries)

        def found_by_all() -> bool:
            for query in list(empty):
                if any(one["value"][1] != "NaN" for one in asked(prometheus, query)):
                    del empty[query]
            time.sleep(0.5)
            return not empty

        try:
            wait_until(found_by_all, "each query finds something", timeout_s=40)
        except AssertionError:
            pytest.fail(f"these find nothing: {empty}")


@pytest.mark.promtool
def test_history_that_the_monitor_does_not_remember_is_that_of_prometheus(
    stack: Stack, monitor: Monitor, tmp_path: Path
) -> None:
    path = "/api/history?group=streams.gps&seconds=7200"
    with prometheus_over(monitor, tmp_path) as prometheus:
        settings = {"STREAMS_PROMETHEUS_URL": prometheus}
        with monitor_over(stack, monitor.worker, tmp_path, settings) as another:

            def known() -> bool:
                told = another.json(path)
                return told["source"] == "prometheus" and any(value for value in told["values"]["arrive"])

            wait_until(known, "Prometheus has rates", timeout_s=120)
            one = another.json(f"{path}&topic=gps.positions.v1&partition=0")
            assert any(value is not None for value in one["values"]["lag"]), one
        settings = {"STREAMS_PROMETHEUS_URL": f"{monitor.url}/nowhere"}
        with monitor_over(stack, monitor.worker, tmp_path, settings) as another:
            told = another.json(path)
            assert "memory" == told["source"]
            assert "is not Prometheus" in told["problem"]


# --- history and flows ------------------------------------------------------------------------------------------------


def test_history_is_told_by_group_and_by_partition(monitor: Monitor) -> None:
    def known() -> bool:
        return any(value for value in monitor.json("/api/history?group=streams.gps&seconds=900")["values"]["consume"])

    wait_until(known, "there is a rate", timeout_s=60)
    one = monitor.json("/api/history?group=streams.gps&seconds=900&topic=gps.positions.v1&partition=1")
    assert ("streams.gps", "gps.positions.v1", 1) == (one["group"], one["topic"], one["partition"])
    assert {"lag", "lag_s", "consume", "arrive"} == one["values"].keys()
    assert one["steps"] == len(one["values"]["lag"])
    events = monitor.json("/api/history?seconds=900")["values"]
    wait_until(lambda: any(monitor.json("/api/history")["values"]["clean"]), "events are counted", timeout_s=60)
    assert {"clean", "late", "duplicate", "rejected"} == events.keys()
    for path, status in (
        ("?group=no-such-group", 404),
        ("?group=streams.gps&topic=gps.positions.v1&partition=99", 404),
        ("?group=streams.gps&topic=gps.positions.v1", 400),
        ("?group=streams.gps&seconds=soon", 400),
    ):
        assert status == monitor.get(f"/api/history{path}")[0], path


def test_flows_are_told_with_the_rates_of_their_edges(monitor: Monitor) -> None:
    def rates() -> dict[tuple[str, str], float | None]:
        gps = next(flow for flow in monitor.json("/api/flows")["flows"] if flow["name"] == "gps")
        return {(edge["from"], edge["to"]): edge["rate"] for edge in gps["edges"]}

    wait_until(
        lambda: (
            (rates()["gps.positions.v1", "deduplicate"] or 0) > 0
            and (rates()["reorder", "to:gps.positions.v1.clean"] or 0) > 0
            and (rates()["fold:vehicles.state.v1", "vehicles.state.v1"] or 0) > 0
        ),
        "events pass",
        timeout_s=60,
    )


# --- the page in a browser --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def page_of(browser: Browser, monitor: Monitor, path: str = "/", **options: Any) -> Iterator[Page]:
    context = browser.new_context(**options)
    page = context.new_page()
    errors: list[str] = []
    hosts: set[str] = set()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: hosts.add(urllib.parse.urlsplit(request.url).netloc))
    page.goto(monitor.url + path)
    page.wait_for_selector("#groups tbody tr")
    yield page
    assert [] == errors
    assert {f"127.0.0.1:{monitor.port}"} == hosts, "assets come from the monitor alone"
    context.close()


@pytest.mark.chromium
def test_the_page_shows_groups_partitions_sources_and_workers_and_goes_on_by_itself(
    browser: Browser, monitor: Monitor
) -> None:
    with page_of(browser, monitor, "/#streams.gps", viewport={"width": 1400, "height": 1000}) as page:
        page.wait_for_selector("#partitions tbody tr")
        first = page.inner_text("#state")
        assert "streams.gps" in page.inner_text("#groups")
        assert {"gps.positions.v1-0", "gps.positions.v1-1", "gps.positions.v1-2"} <= set(
            page.locator("#partitions tbody tr td:nth-child(2)").all_inner_texts()
        )
        assert "gps.positions.v1" in page.inner_text("#sources")
        assert f"127.0.0.1:{monitor.worker.port}" in page.inner_text("#workers")
        assert "gps.positions.v1 0-2" in page.inner_text("#workers")
        assert "/s" in page.inner_text("#throughput")
        page.wait_for_function("before => document.getElementById('state').textContent !== before", arg=first)


@pytest.mark.chromium
def test_charts_show_the_history_of_the_group_and_of_a_partition(browser: Browser, monitor: Monitor) -> None:
    with page_of(browser, monitor, "/#streams.gps", viewport={"width": 1400, "height": 1000}) as page:
        page.wait_for_selector("#chart-rates :is(polyline, circle).one", state="attached")
        page.click("#history-ranges button:text('15 min')")

        def is_read_by_keyboard() -> bool:
            """Where an answer of the monitor has just drawn the chart again, the cursor is set again."""
            page.focus("#chart-rates svg.lines")
            page.keyboard.press("End")
            page.keyboard.press("ArrowLeft")
            return re.search(r"arrived .*, consumed ", page.inner_text("#chart-rates .readout")) is not None

        wait_until(is_read_by_keyboard, "the values at the cursor")
        page.click("#chart-rates summary")
        assert ["Time", "arrived", "consumed"] == page.locator("#chart-rates th").all_inner_texts()
        assert "Arrow keys move through time" in (page.get_attribute("#chart-rates svg.lines", "aria-label") or "")
        page.click("#partitions button:text('gps.positions.v1-1')")
        assert "History of gps.positions.v1-1 in streams.gps" == page.inner_text("#history-title")
        page.wait_for_selector("#chart-rates :is(polyline, circle).one", state="attached")
        page.click("#history-whole")
        assert "History of streams.gps" == page.inner_text("#history-title")


@pytest.mark.chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_flows_are_pictures_with_rates_that_can_be_read(browser: Browser, monitor: Monitor, scheme: str) -> None:
    options: dict[str, Any] = {"color_scheme": scheme, "viewport": PHONE}
    context = browser.new_context(**options)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{monitor.url}/flows")
    page.wait_for_selector(".flow:has(#flow-gps) text.rate:text-matches('/s$')", timeout=60_000)
    assert "gps.positions.v1" in page.inner_text(".flow:has(#flow-gps) .picture")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    ink, ground = luminance(page, ".picture .topic text", "fill"), luminance(page, ".picture", "backgroundColor")
    dark, light = sorted([ink, ground])
    assert (light + 0.05) / (dark + 0.05) >= 4.5
    page.click(".flow:has(#flow-gps) summary")
    assert page.locator(".flow:has(#flow-gps) tr").count() > 5
    assert [] == errors
    context.close()


@pytest.mark.chromium
def test_a_topic_that_is_gone_is_what_the_page_says_first(browser: Browser, monitor: Monitor, stack: Stack) -> None:
    client = admin_of(stack)
    delete_topics(client, {ORDERS.late})
    try:
        with page_of(browser, monitor) as page:
            first = page.locator("#alarm-list li").first
            page.wait_for_selector("#alarm-list li:first-child strong:has-text('MISSING')")
            assert f"MISSING {ORDERS.late}the topic does not exist" in first.inner_text()
            assert "/runbooks/topic-missing" == first.locator("a").get_attribute("href")
    finally:
        apply_topics(client, [ORDERS])
    wait_until(lambda: not monitor.json("/api/overview")["missing_topics"], "the topic is there again")


@pytest.mark.chromium
def test_a_thousand_partitions_are_shown_and_filtered(browser: Browser, monitor: Monitor) -> None:
    with page_of(browser, monitor, f"/#{WIDE}", viewport={"width": 1400, "height": 1000}) as page:
        page.wait_for_function(f"document.querySelectorAll('#partitions tbody tr').length === {PARTITIONS_WIDE}")
        page.keyboard.press("/")
        page.keyboard.type(f"{WIDE}-77")
        visible = page.locator("#partitions tbody tr:visible")
        assert 11 == visible.count()
        assert "11 of 1,000" == page.inner_text("#shown")
        page.keyboard.press("Escape")
        assert "1,000 of 1,000" == page.inner_text("#shown")


@pytest.mark.chromium
def test_everything_can_be_reached_by_keyboard(browser: Browser, monitor: Monitor) -> None:
    with page_of(browser, monitor, f"/#{WIDE}") as page:
        page.keyboard.press("Tab")
        assert "Skip to the groups" == page.evaluate("document.activeElement.textContent")
        before = page.inner_text("#partitions-title")
        page.keyboard.press("j")
        assert page.inner_text("#partitions-title") != before
        assert page.evaluate("document.activeElement.tagName") == "BUTTON"
        page.keyboard.press("t")
        assert page.evaluate("document.documentElement.dataset.theme") in {"dark", "light"}
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert {"theme", "filter", "Runbooks"} & reached


def luminance(page: Page, selector: str, name: str) -> float:
    text = page.eval_on_selector(selector, f"node => getComputedStyle(node)['{name}']")
    red, green, blue = (
        value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4
        for value in (int(part) / 255 for part in re.findall(r"\d+", text)[:3])
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_systems_colours_and_is_readable_in_both(
    browser: Browser, monitor: Monitor, scheme: str
) -> None:
    with page_of(browser, monitor, "/#streams.gps", color_scheme=scheme) as page:
        paper = luminance(page, "body", "backgroundColor")
        assert (scheme == "dark") == (paper < 0.2)
        for ink, ground in (("body", "body"), (".v.OK", ".v.OK"), ("#state", "body"), (".card p", ".card")):
            dark, light = sorted([luminance(page, ink, "color"), luminance(page, ground, "backgroundColor")])
            assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{ink} on {ground}: too little contrast"


@pytest.mark.chromium
@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable"])
def test_the_page_goes_on_when_the_proxy_before_the_monitor_does(
    browser: Browser, monitor: Monitor, status: str
) -> None:
    with Gateway(monitor.port) as gateway:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{gateway.port}/#streams.gps")
        page.wait_for_selector("#partitions tbody tr")
        gateway.answer_only(status)
        wait_until(lambda: gateway.refused >= 2, "the page has asked again and again", timeout_s=30)
        before = page.inner_text("#state")
        gateway.pass_on()
        page.wait_for_function(
            "before => /^as of/.test(document.getElementById('state').textContent)"
            " && document.getElementById('state').textContent !== before",
            arg=before,
            timeout=30_000,
        )
        page.close()


@pytest.mark.chromium
def test_the_page_goes_on_when_nothing_comes_any_more_on_an_open_connection(browser: Browser, monitor: Monitor) -> None:
    with Gateway(monitor.port) as gateway:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{gateway.port}/#streams.gps")
        page.wait_for_selector("#partitions tbody tr")
        gateway.hold_open_connections()
        page.wait_for_function("() => /^no news/.test(document.getElementById('state').textContent)", timeout=30_000)
        page.wait_for_function("() => /^as of/.test(document.getElementById('state').textContent)", timeout=60_000)
        page.close()


@pytest.mark.chromium
@pytest.mark.parametrize(
    "address", ["/#%", "/#%E0%A4%A", "/#groups-title", "/#__proto__", "/#<img%20src=x>", "/#a%00b"]
)
def test_the_page_survives_odd_addresses(browser: Browser, monitor: Monitor, address: str) -> None:
    with page_of(browser, monitor, address) as page:
        page.click("#groups button:text('streams.gps')")
        page.wait_for_selector("#partitions tbody tr")
        assert "Partitions of streams.gps" == page.inner_text("#partitions-title")
        page.evaluate("location.hash = '#%'")
        page.evaluate(f"location.hash = '#{WIDE}'")
        page.wait_for_function(
            "title => document.getElementById('partitions-title').textContent === title", arg=f"Partitions of {WIDE}"
        )


@pytest.mark.chromium
def test_a_group_that_is_not_there_is_said_to_be(browser: Browser, monitor: Monitor) -> None:
    with page_of(browser, monitor, "/#no-such-group") as page:
        page.wait_for_function(
            "() => document.getElementById('partitions-title').textContent.endsWith('there is no such group')"
        )


@pytest.mark.chromium
def test_nothing_of_a_table_is_cut_off_on_a_phone(browser: Browser, monitor: Monitor) -> None:
    with page_of(browser, monitor, "/#streams.gps", viewport=PHONE) as page:
        page.wait_for_selector("#sources tbody tr")
        page.wait_for_selector("#partitions tbody tr")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        for table in ("groups", "partitions", "sources", "workers"):
            overflow = page.eval_on_selector(f"#{table}", "node => node.scrollWidth - node.parentElement.clientWidth")
            assert overflow <= 0, f"{table} is {overflow} px wider than its place"
            cells = page.locator(f"#{table} tbody td:visible")
            edges = cells.evaluate_all("nodes => nodes.map(node => node.getBoundingClientRect().right)")
            assert max(edges) <= PHONE["width"]
        for state in page.locator("#sources td:nth-child(4)").all():
            assert state.is_visible()
        words = page.locator("#groups tbody tr", has_text="streams.gps").inner_text()
        assert re.search(r"\d/s", words), words


@pytest.mark.chromium
def test_the_page_fits_on_a_phone(browser: Browser, monitor: Monitor) -> None:
    with page_of(browser, monitor, "/#streams.gps", viewport={"width": 360, "height": 740}) as page:
        page.wait_for_selector("#partitions tbody tr")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator("#partitions tbody td.why").first.is_visible()
        assert float(page.eval_on_selector("body", "node => getComputedStyle(node).fontSize").removesuffix("px")) >= 14
