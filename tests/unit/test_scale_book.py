"""`/scale/{group}`: from offsets that are watched to the number that an autoscaler reads over HTTP."""

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message

from streams.hosts import Hosts
from streams.monitor.group_lag import GroupLag
from streams.monitor.scale import ScalePolicy
from streams.monitor.scale_book import ScaleBook, load_of
from streams.monitor.slo import SloTracker
from streams.monitor.snapshot import Snapshot
from streams.monitor.status import Status
from streams.monitor.watcher import Watcher
from streams.monitor.web.app import MonitorWeb
from streams.monitor.web.clusters import ClustersWeb
from streams.settings import load_settings
from tests.lag_histories import WINDOW_S, History, behind, grows
from tests.unit.test_monitor_health import a_round

LOG = grows(100.0)
FALLS_BEHIND = History(
    "", LOG, behind(LOG, lambda t: 3_000 + max(0.0, t) * 50), Status.OK, Status.OK, "", watched_s=WINDOW_S
)


def snapshot_of(group: GroupLag | None, failure: str | None = None) -> Snapshot:
    groups = {} if group is None else {"g": group}
    return Snapshot(0, "c", 5.0, a_round(), groups, {}, (), SloTracker().judge(), (), {}, (), failure)


def looks() -> list[GroupLag]:
    return [group for _, group in FALLS_BEHIND.watched(5.0) if group is not None]


def test_rates_and_lag_are_those_of_the_offsets() -> None:
    load = load_of(looks()[-1])

    assert 100.0 == pytest.approx(load.arrive_rate, rel=0.02)
    assert 50.0 == pytest.approx(load.drain_rate, rel=0.02)
    assert [9_000] == load.lag.tolist()
    assert 90.0 == pytest.approx(load.lag_s_most, abs=2.0)
    assert (1, 1) == (load.partitions, load.members)
    assert [0] == load.owner.tolist()


def test_a_group_is_told_of_as_long_as_there_are_new_offsets() -> None:
    book = ScaleBook(ScalePolicy())
    for group in looks():
        book.observe(snapshot_of(group))
    row = book.row("g")

    assert row is not None
    assert (1, 1, 1, 9_000, 50.0) == (
        row["replicas"], row["partitions"], row["members"], row["lag"], row["worker_rate"]
    )  # fmt: skip
    assert "1 is the most" in row["reason"]
    book.observe(snapshot_of(None, "no broker"))
    assert row == book.row("g")
    book.observe(snapshot_of(None))
    assert book.row("g") is None


def asked(web: MonitorWeb | ClustersWeb, path: str, host: str = "127.0.0.1") -> tuple[int, Any]:
    """The answer to a request, past the middleware."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", host.encode())], "scheme": "http", "server": ("127.0.0.1", 80), "http_version": "1.1",
    }  # fmt: skip
    asyncio.run(web.app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_the_number_is_served_to_whoever_asks_by_a_name_of_the_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMS_MONITOR_WORKERS", "")
    watcher = Watcher(load_settings(kafka_bootstrap_servers="127.0.0.1:1"), ())
    web = MonitorWeb(watcher, bootstrap_servers="", hosts=Hosts("127.0.0.1", frozenset()), scale=ScalePolicy())
    try:
        assert 503 == asked(web, "/scale/g")[0]
        watcher.latest = snapshot = snapshot_of(looks()[-1])
        assert 503 == asked(web, "/scale/g")[0]  # nothing was decided
        for listener in watcher._listeners:
            listener(snapshot)

        status, body = asked(web, "/scale/g")
        assert (200, 1) == (status, json.loads(body)["replicas"])
        assert 404 == asked(web, "/scale/other")[0]
        assert 403 == asked(web, "/scale/g", host="evil.example.com")[0]
    finally:
        watcher.stop()
