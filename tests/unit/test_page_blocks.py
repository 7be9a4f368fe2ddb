"""Python blocks of pages without a guide's own test: each is run as it stands on its page."""

import ast
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copytree
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake

from logistics.folds.vehicle_minute import VehicleMinute
from logistics.folds.vehicle_state import VehicleState
from streams import (
    Count,
    EventRecords,
    Events,
    Fold,
    Operator,
    OperatorContext,
    OperatorSpec,
    Output,
    OutputTopic,
    Stream,
    WatermarkTrace,
    source,
)
from streams.deadletters.letter.letter import Letter, Repair
from streams.flow.fleet_map import FleetMap
from tests.documents import ROOT, blocks
from tests.unit.test_own_operators import write_schema

FIELDS = ("latitude", "longitude", "speed_kmh", "heading_deg")
POSITION = {"event_id": "e", "device_id": "van-1", "sequence": 1, "latitude": 52.5, "longitude": 13.4}


def run(page: str, names: dict[str, Any], *, count: int) -> dict[str, Any]:
    """Runs the Python blocks of a page one after the other, with the reader's own names; `_` is the last value."""
    found = [block for block in blocks(ROOT / "docs" / page) if block.language == "python"]
    assert len(found) == count
    for block in found:
        tree = ast.parse(block.text)
        if isinstance(last := tree.body[-1], ast.Expr):
            kept = ast.Assign([ast.Name("_", ast.Store())], last.value)
            tree.body[-1] = ast.copy_location(kept, last)
        exec(compile(ast.fix_missing_locations(tree), block.place, "exec"), names)  # noqa: S102 - the page's own test
    return names


# --- docs/flows.md ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpeedAlarms(OperatorSpec):
    """Events above a speed go to a topic."""

    topic: str

    @property
    def name(self) -> str:
        return "speed_alarms"

    @property
    def outputs(self) -> list[OutputTopic]:
        return [OutputTopic(self.topic)]

    def build(self, context: OperatorContext) -> Operator:
        return SpeedAlarmsOperator(self.topic)


class SpeedAlarmsOperator(Operator):
    def __init__(self, topic: str) -> None:
        self._topic = topic

    def process(self, events: Events, trace: WatermarkTrace) -> Output:
        return Output(events, trace, [EventRecords(self._topic, events.take(events.number("speed_kmh") > 60.0), "")])


def moves() -> Fold:
    return Fold("device_id", FIELDS, {"moves": Count()})


def is_moving(batch: pa.RecordBatch) -> pa.Array:
    return pc.greater(batch.column("speed_kmh"), 3.0)


def in_miles(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch({"speed_kmh": pc.multiply(batch.column("speed_kmh"), 0.621371)})


def test_the_flow_with_branches_runs_in_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copytree(ROOT / "logistics" / "schemas", tmp_path / "schemas")
    write_schema(tmp_path / "schemas", "vehicles.moves.v1", {"device_id": "string", "moves": "long"})
    monkeypatch.chdir(tmp_path)
    own = {
        "FIELDS": FIELDS, "VehicleState": VehicleState, "Moves": moves, "is_moving": is_moving, "in_miles": in_miles,
        "SpeedAlarms": SpeedAlarms,
    }  # fmt: skip
    names = run("flows.md", own, count=4)
    assert isinstance(names["cleaned"], Stream)
    driver = names["driver"]
    began = datetime(2026, 1, 5, 8, tzinfo=UTC)
    for number, speed in enumerate([0.0, 80.0, 120.0]):
        more = {"event_id": f"e{number}", "sequence": number, "event_time": began + timedelta(seconds=number)}
        driver.feed({**POSITION, **more, "speed_kmh": speed, "heading_deg": None})
    driver.advance("1m")
    assert driver.table("vehicles.state.v1")["van-1"]["events"] == 3
    assert driver.table("vehicles.moves.v1")["van-1"]["moves"] == 2
    assert [len(driver.read(topic)) for topic in ("gps.moving.v1", "vehicles.alarms.v1")] == [2, 1]


# --- the other pages --------------------------------------------------------------------------------------------------


def test_the_map_of_the_fleet_page_is_declared() -> None:
    assert isinstance(run("fleet-page.md", {}, count=1)["fleet"], FleetMap)


@pytest.mark.parametrize(
    ("reason", "key", "value", "repaired"),
    [
        ("key_mismatch", b"van-1-other", b"v", Repair(b"v", key=b"van-1")),
        ("key_mismatch", None, b"v", None),
        ("key_mismatch", b"van-1-other", None, None),
        ("malformed", b"van-1-other", b"v", None),
    ],
)
def test_the_repair_of_keys(reason: str, key: bytes | None, value: bytes | None, repaired: Repair | None) -> None:
    letter = Letter(
        id="0" * 24, topic="t.dlq", partition=0, offset=0, timestamp_ms=0, source="t", key=key, value=value, headers=[],
        reason=reason, message="", attempt=1, schema_id=7, first_failed_at=0,
    )  # fmt: skip
    assert run("runbooks/dead-letters.md", {}, count=1)["right_key"](letter) == repaired


class _Table(BaseHTTPRequestHandler):
    """Two pages of a table's rows as Arrow streams."""

    asked: list[dict[str, list[str]]]

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        self.asked.append(asked)
        first = "cursor" not in asked
        self.send_response(200)
        self.send_header("Streams-Next", "next page" if first else "")
        self.end_headers()
        kilometres = [1.5, 30.0] if first else [7.25]
        self.wfile.write(pl.DataFrame({"odometer_km": kilometres}).write_ipc_stream(None).getvalue())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Prints nothing."""


@contextlib.contextmanager
def _table() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Table)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_notebook_reads_all_pages_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    _Table.asked = []
    (block,) = [block for block in blocks(ROOT / "docs" / "query-the-tables.md") if block.language == "python"]
    names: dict[str, Any] = {}
    with _table() as address:
        assert "127.0.0.1:6066" in block.text
        code = block.text.replace("127.0.0.1:6066", address)
        exec(compile(code, block.place, "exec"), names)  # noqa: S102 - the page's own test
    assert names["vehicles"]["odometer_km"].to_list() == [1.5, 30.0, 7.25]
    assert [asked.get("cursor") for asked in _Table.asked] == [None, ["next page"]]
    assert all((asked["format"], asked["where"]) == (["arrow"], ["events>=10"]) for asked in _Table.asked)
    assert "30.0" in capsys.readouterr().out


def test_flows_with_sinks_are_declared_and_the_lake_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    days = pa.array(["2026-01-06", "2026-01-05", "2026-01-05"])
    write_deltalake("lake/minutes", pa.table({"day": days, "distance_km": np.array([4.0, 1.5, 2.0])}))
    positions = source("gps.positions.v1", key="device_id", fields=FIELDS).deduplicate().reorder()
    own = {"positions": positions, "VehicleState": VehicleState, "VehicleMinute": VehicleMinute}
    names = run("sinks.md", own, count=3)
    assert [sink.name for sink in names["flow"].pipeline.sinks] == ["postgres-vehicles", "delta-minutes"]
    assert names["minutes"].count_rows() == 3
    assert names["_"].fetchall() == [("2026-01-05", 3.5), ("2026-01-06", 4.0)]
