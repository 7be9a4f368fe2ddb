"""What the demo shows: a table in a terminal that fits, one line in a log, keys that are pressed."""

import io
import os
import pty
import re
import sys
import termios
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest
from rich.console import Console

from streams.deadletters.letter.letter import Letter
from streams.demo.feed import RATE_MAX, RATE_MIN, suitable_rate
from streams.demo.keys import Keys
from streams.demo.monitor_probe import GroupReading, MonitorReading
from streams.demo.order_watch import OrdersReading
from streams.demo.parts import Links
from streams.demo.snapshot import Snapshot
from streams.demo.topic_probes import Vehicle
from streams.demo.troubles.poison import degrees
from streams.demo.view import Place, line, screen, summary
from streams.demo.worker_probe import Age, FlowReading, WorkerReading
from streams.schemas.catalog import Catalog

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LINKS = Links("http://h:1/fleet", "http://h:1/", "http://h:1/dead-letters", "http://h:2/v1/events/x", "http://h:3/m")
OUTCOMES = {"clean": 1_793, "late": 5, "duplicate": 53, "rejected": 6}


def shot() -> Snapshot:
    flow = FlowReading(OUTCOMES, {name: float(count) for name, count in OUTCOMES.items()}, 5.1)
    flows = dict.fromkeys(("gps", "orders", "dispatch", "tracking"), flow)
    vehicle = Vehicle("truck-1200-000116", 39, 0.4, 35.0, 37.0, NOW, None)
    return Snapshot(
        now=NOW, elapsed_s=52.0, feeding="simulated", worker=WorkerReading("ready", flows, Age(5.3, 10.0)),
        lag={0: 238, 1: 240, 2: 218},
        monitor=MonitorReading({"streams.gps": GroupReading(1, "OK"), "streams.orders": GroupReading(17, "WARN")}),
        vehicles=(vehicle,) * 4, kills=1, orders=OrdersReading(7, {"YES": 3}),
    )  # fmt: skip


def test_the_screen_has_a_row_for_each_flow_and_fits_into_24_lines_of_80_columns() -> None:
    out = io.StringIO()
    Console(file=out, width=80, height=24).print(screen(shot(), Place(Path("x"), LINKS), ["Poison: 25 dead letters"]))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 24
    assert all(len(one) <= 80 for one in lines)
    assert any(re.fullmatch(r"gps +1,793 +5 +53 +6 +1,857 +696 +5.1 s +OK *", one) for one in lines), out.getvalue()
    assert any(one.startswith("orders") and "17" in one and one.rstrip().endswith("WARN") for one in lines)
    for link in (LINKS.fleet, LINKS.monitor, LINKS.dead_letters, LINKS.gateway):
        assert any(link in one for one in lines)


def test_a_log_gets_one_line_with_rates_and_lag_of_every_flow() -> None:
    assert line(shot()) == (
        "  52 s  worker ready | gps: clean 1,793/s  late 5/s  duplicate 53/s  rejected 6/s  lag 696 | orders: clean "
        "1,793/s  lag 17 | dispatch: clean 1,793/s  lag - | tracking: clean 1,793/s  lag - | watermark age 5.1 s | "
        "vehicle truck-1200-000116: 39 events, 0.4 km | orders: 7 rows; deliveries verified: 3 YES"
    )


def test_the_summary_ends_with_what_was_counted_after_each_trouble() -> None:
    lines = summary(shot(), "some", ["Poison: 25 dead letters"]).splitlines()
    assert lines[0] == "The demo was watched for 52 s, the worker killed once."
    assert lines[-1] == "Poison: 25 dead letters"


@pytest.mark.parametrize(("through", "rate"), [(1e9, RATE_MAX), (9_000, 1_500), (6_599, 1_000), (0, RATE_MIN)])
def test_the_rate_follows_what_the_machine_has_shown(through: float, rate: int) -> None:
    assert suitable_rate(through) == rate


def test_keys_are_read_without_enter_and_the_terminal_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with os.fdopen(theirs, "rb", buffering=0) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp())  # it is the terminal of this process
        with Keys() as keys:
            assert not termios.tcgetattr(theirs)[3] & (termios.ICANON | termios.ECHO)
            assert keys.wait(0.0) == ""
            os.write(ours, b"tp")
            assert keys.wait(5.0) == "tp"
        assert termios.tcgetattr(theirs) == before
    os.close(ours)


def test_a_pipe_has_keys_until_its_end_and_a_process_in_the_background_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"q")
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        with Keys() as keys:
            assert [keys.wait(5.0), keys.wait(0.0), keys.wait(0.0)] == ["q", "", ""]

    ours, theirs = pty.openpty()
    os.write(ours, b"q")
    with os.fdopen(theirs, "rb", buffering=0) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(os, "tcgetpgrp", lambda _: 1)
        with Keys() as keys:
            assert keys.wait(0.0) == ""
    os.close(ours)


def letter(row: dict[str, Any], reason: str = "invalid") -> Letter:
    schema = fastavro.parse_schema(dict(Catalog.load().latest("gps.positions.v1-value").parsed))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, row)
    return Letter(
        id="0" * 24, topic="gps.positions.v1.dlq", partition=0, offset=0, timestamp_ms=0, source="gps.positions.v1",
        key=b"van-1", value=b"\0\0\0\0\x07" + out.getvalue(), headers=[], reason=reason, message="", attempt=1,
        schema_id=7, first_failed_at=0,
    )  # fmt: skip


def test_the_repair_divides_degrees_that_were_scaled_and_leaves_everything_else() -> None:
    row = {"event_id": "e", "device_id": "van-1", "sequence": 1, "event_time": 1_000, "latitude": 0.0, "longitude": 1.0}
    scaled = {**row, "latitude": 525_163_000.0, "longitude": 133_777_000.0}
    repaired = degrees(letter(scaled))
    assert repaired == letter({**row, "latitude": 52.5163, "longitude": 13.3777}).value
    assert degrees(letter({**row, "longitude": 200.0})) is None
    assert degrees(letter(scaled, reason="malformed")) is None
