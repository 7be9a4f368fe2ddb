import io
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from loadtest.fleet import SOURCES, Fleet, TrafficBatch
from loadtest.fleet.fill import Filler
from loadtest.fleet.mix import NOTHING, REALISTIC, Bounds, Mix, Schemas, mix_of
from loadtest.fleet.traffic import CODES, REJECTS, Kind
from loadtest.generator.command import _awaited, app
from loadtest.generator.plan import Plan, Share, Traffic, plan_history, plan_open_loop
from loadtest.generator.sender import Sender
from loadtest.generator.tally import Tally, Window
from loadtest.generator.target import refuse_foreign_topic
from streams.errors import UsageError
from tests.unit.test_fleet import ORDERS, ORDERS_SCHEMA, SCHEMA, START_MS, Row, World
from tests.unit.test_fleet_faults import SCHEMA_2, TWO

pytestmark = pytest.mark.thorough

NOW_MS = START_MS


def traffic(pipeline: str = "gps", mix: Mix = REALISTIC, **changed: Any) -> Traffic:
    schemas = Schemas({"gps": SCHEMA, "orders": ORDERS_SCHEMA}[pipeline], 7, SCHEMA_2, 8, foreign_id=9)
    return Traffic(mix_of(pipeline, mix), schemas, Bounds(), SOURCES[pipeline].events_per_tick, **changed)


def batches_of(plan: Plan, pipeline: str = "gps", records: int | None = None) -> Iterator[TrafficBatch]:
    return Fleet(plan.seed, plan.shape, SOURCES[pipeline]).batches(plan.records if records is None else records)


def rows_of(plan: Plan, pipeline: str = "gps", records: int | None = None) -> list[Row]:
    return [
        row
        for batch in batches_of(plan, pipeline, records)
        for row in zip(batch.keys, batch.values, batch.timestamps_ms, batch.kinds.tolist(), strict=True)
    ]


@given(st.integers(0, 10_000), st.integers(1, 50))
def test_the_parts_of_all_processes_are_disjoint_and_complete(total: int, of: int) -> None:
    parts = [Share(index, of).part(total) for index in range(of)]
    assert [first for first, _ in parts] == list(itertools.accumulate((n for _, n in parts[:-1]), initial=0))
    assert sum(number for _, number in parts) == total


def test_a_single_process_has_the_seed_it_was_given_and_several_have_seeds_of_their_own() -> None:
    assert Share().seed(5) == 5
    assert len({Share(index, 3).seed(5) for index in range(3)} | {5}) == 4


def test_a_process_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="--index 2"):
        Share(2, 2)


@pytest.mark.parametrize("pipeline", ["gps", "orders"])
def test_history_ends_about_now(pipeline: str) -> None:
    plan = plan_history(traffic(pipeline), Share(), events=100_000, now_ms=NOW_MS, start_ms=None, devices=None)
    last_ms = max(batch.timestamps_ms[-1] for batch in batches_of(plan, pipeline))
    assert NOW_MS - 20_000 < last_ms <= NOW_MS


@pytest.mark.parametrize(("rate", "devices"), [(200, None), (4_000, None), (4_000, 100)])
@pytest.mark.parametrize("pipeline", ["gps", "orders"])
def test_open_loop_sends_as_many_records_a_second_as_asked_for(pipeline: str, rate: int, devices: int | None) -> None:
    plan = plan_open_loop(traffic(pipeline), Share(), rate=rate, seconds=None, start_ms=START_MS, devices=devices)
    timestamps = np.concatenate([batch.timestamps_ms for batch in batches_of(plan, pipeline, records=rate * 25)])
    # Copies that are sent seconds later, and late events, are missing in the beginning.
    steady = timestamps[timestamps >= START_MS + 15_000]
    assert steady.size / ((steady[-1] - START_MS - 15_000) / 1_000) == pytest.approx(rate, rel=0.05)


def test_in_open_loop_the_event_time_of_a_plain_record_is_when_it_is_to_be_sent() -> None:
    plan = plan_open_loop(traffic(), Share(), rate=2_000, seconds=None, start_ms=START_MS, devices=None)
    rows = rows_of(plan, records=20_000)
    events = TWO.events(rows)
    plain = [
        (event.event_time_ms, row[2]) for event, row in zip(events, rows, strict=True) if row[3] == CODES[Kind.PLAIN]
    ]
    assert len(plain) > 15_000
    assert all(event_time_ms == timestamp_ms for event_time_ms, timestamp_ms in plain)


@pytest.mark.parametrize("world", [TWO, ORDERS], ids=["gps", "orders"])
def test_processes_that_send_together_share_no_device(world: World) -> None:
    keys = []
    for index in range(3):
        plan = plan_history(
            traffic(world.pipeline, NOTHING), Share(index, 3), events=30_000, now_ms=NOW_MS, start_ms=1, devices=100
        )
        rows = rows_of(plan, world.pipeline)
        assert len(rows) == 10_000
        keys.append({key for key, *_ in rows})
    assert not keys[0] & keys[1] | keys[1] & keys[2] | keys[0] & keys[2]
    if world is TWO:
        assert keys[0] | keys[1] | keys[2] == {f"truck-{number:06d}".encode() for number in range(100)}


def test_too_few_devices_for_a_rate_or_for_the_processes_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 98"):
        plan_open_loop(traffic(), Share(), rate=100_000, seconds=1, start_ms=0, devices=10)
    with pytest.raises(UsageError, match="too few for 5"):
        plan_history(traffic(), Share(0, 5), events=10, now_ms=NOW_MS, start_ms=None, devices=4)


def test_shares_that_do_not_fit_are_refused_as_wrong_usage() -> None:
    mix = Mix(duplicate_immediate=0.5, late=0.6)
    with pytest.raises(UsageError, match="more than everything"):
        plan_history(traffic(mix=mix), Share(), events=9, now_ms=9, start_ms=1, devices=4)


def test_topics_of_others_are_refused() -> None:
    refuse_foreign_topic("loadtest.gps")
    with pytest.raises(UsageError, match="--any-topic"):
        refuse_foreign_topic("gps.positions.v1")


# --- what must become of it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [TWO, ORDERS], ids=["gps", "orders"])
def test_the_tally_is_what_the_model_finds(world: World) -> None:
    plan = plan_history(traffic(world.pipeline), Share(), events=20_000, now_ms=NOW_MS, start_ms=START_MS, devices=300)
    tally = Tally(quarantine_rejects=100)
    for batch in batches_of(plan, world.pipeline):
        tally.add(batch)
    model = world.judged(rows_of(plan, world.pipeline), plan.shape)
    expected = tally.expected(late_exact=True)
    assert (expected["unique"], expected["duplicates"], expected["late"]) == (
        len(model.clean),
        len(model.duplicates),
        len(model.late),
    )
    found = [each.reason for each in model.rejected]
    assert expected["rejects"] == {reason: found.count(reason) for reason in set(found)}
    assert (
        expected["records"]
        == 20_000
        == sum(expected["rejects"].values()) + sum(expected[name] for name in ("unique", "duplicates", "late"))
    )


def reject_batch(key: bytes, *timestamps: int) -> TrafficBatch:
    kinds = np.full(len(timestamps), CODES[REJECTS[0]], dtype=np.int8)
    return TrafficBatch([key] * len(timestamps), [b""] * len(timestamps), list(timestamps), kinds)


def test_rejects_are_no_longer_exact_once_a_device_is_quarantined() -> None:
    tally = Tally(quarantine_rejects=2)
    tally.add(reject_batch(b"a", 0, 30_000, 60_000))
    tally.add(reject_batch(b"b", 60_000))
    assert tally.rejects_exact
    tally.add(reject_batch(b"a", 60_001))
    assert not tally.rejects_exact


def test_what_must_become_visible_of_a_stretch_is_counted_and_so_is_how_late_it_was_sent() -> None:
    window = Window(1_000, 2_000)
    kinds = [Kind.PLAIN, Kind.LATE, Kind.DUPLICATE, Kind.MALFORMED, Kind.SKEWED, Kind.NEWEST_FIRST, Kind.PLAIN]
    times = [999, 1_000, 1_100, 1_200, 1_300, 1_999, 2_000]
    codes = np.array([CODES[kind] for kind in kinds], dtype=np.int8)
    batch = TrafficBatch([b"a"] * 7, [b""] * 7, times, codes)
    over = []
    for first, last in ((0, 6), (6, 7)):
        window.add(batch.slice(first, last), sent_ms=2_500.0)
        over.append(window.is_over)
    assert over == [False, True]
    assert window.due == 3
    assert window.delays.get_total_count() == 5
    assert window.delays.get_max_value() == pytest.approx(1_500, rel=0.001)


# --- sending ----------------------------------------------------------------------------------------------------------


class Taker:
    """Stands in for the producer alone: what is tested is when the sender hands over what."""

    def __init__(
        self, takes_s: float = 0.0, stop_after: int | None = None, stop: threading.Event | None = None
    ) -> None:
        self.refused = 0
        self.taken: list[tuple[float, int]] = []
        self._takes_s, self._stop_after, self._stop = takes_s, stop_after, stop

    def send(self, topic: str, batch: TrafficBatch) -> int:
        time.sleep(self._takes_s)
        self.taken.extend((time.time() * 1000, timestamp) for timestamp in batch.timestamps_ms)
        if self._stop_after is not None and len(self.taken) >= self._stop_after:
            assert self._stop is not None
            self._stop.set()
        return len(batch)


def plain_batch(timestamps: Iterable[int]) -> TrafficBatch:
    times = list(timestamps)
    count = len(times)
    return TrafficBatch([b"k"] * count, [b"v"] * count, times, np.zeros(count, np.int8))


def sender_of(taker: Taker, stop: threading.Event | None = None) -> tuple[Sender, Tally]:
    tally = Tally(0)
    return Sender(cast("Filler", taker), "t", tally, stop or threading.Event()), tally


def test_no_record_is_sent_before_its_time_and_the_end_is_left_out() -> None:
    taker = Taker()
    sender, tally = sender_of(taker)
    start_ms = int(time.time() * 1000) + 50
    sender.send_open_loop(iter([plain_batch(range(start_ms, start_ms + 400))]), start_ms + 200)
    assert [timestamp for _, timestamp in taker.taken] == list(range(start_ms, start_ms + 200))
    assert all(sent_ms >= timestamp for sent_ms, timestamp in taker.taken)
    assert tally.records == 200


def test_a_sender_that_is_held_up_says_how_far_it_is_behind() -> None:
    taker = Taker(takes_s=0.15)
    sender, _ = sender_of(taker)
    start_ms = int(time.time() * 1000)
    sender.send_open_loop(iter([plain_batch([start_ms, start_ms + 1, start_ms + 60])]), None)
    assert sender.behind_ms_max >= 80
    assert sender.behind_ms == 0.0


def test_a_sender_that_is_told_to_stop_has_counted_exactly_what_it_sent() -> None:
    stop = threading.Event()
    taker = Taker(stop_after=15_000, stop=stop)
    sender, tally = sender_of(taker, stop)
    sender.send_history(iter([plain_batch(range(25_000)), plain_batch(range(25_000, 50_000))]))
    assert tally.records == len(taker.taken) == 25_000


# --- the command, without a broker ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "either --events"),
        (["--events", "1", "--rate", "1"], "either --events"),
        (["--events", "1", "--seconds", "1"], "--seconds goes with --rate"),
        (["--rate", "1", "--count-from-ms", "1"], "--count-from-ms and --count-until-ms go together"),
        (["--events", "1", "--count-from-ms", "1", "--count-until-ms", "2"], "and with --rate"),
        (["--events", "1"], "--any-topic"),
        (["--events", "1", "--topic", "loadtest.x", "--late", "1"], "more than everything"),
        (["--events", "1", "--topic", "loadtest.x", "--pipeline", "orders", "--zipf", "1"], "not for orders"),
        (["--events", "1", "--topic", "loadtest.x", "--index", "1"], "count from 0"),
        (["--events", "1", "--topic", "loadtest.x", "--duplicate-immediate", "1"], "cannot be everything"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_asked_for(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(app, arguments, obj=threading.Event())
    assert isinstance(result.exception, UsageError)
    assert says in str(result.exception)


@pytest.mark.parametrize("line", ["", "now", "[]", '{"start": 1}', '{"start_ms": "soon"}', '{"start_ms": null}'])
def test_a_start_that_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(line))
    with pytest.raises(UsageError, match="--await-start wants a line like"):
        _awaited()


def test_a_start_is_awaited_once_all_is_ready(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"start_ms": 17, "count_from_ms": 18, "count_until_ms": 19}\n'))
    assert _awaited() == {"start_ms": 17, "count_from_ms": 18, "count_until_ms": 19}
    assert capsys.readouterr().out == '{"ready": true}\n'


@pytest.mark.slow  # in short: test_outages, a worker; every command waits for ten seconds
def test_a_broker_that_does_not_answer_is_said_in_one_line() -> None:
    arguments = ["--events", "1", "--topic", "loadtest.x", "--bootstrap", "127.0.0.1:1"]
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.generator", *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "no Kafka broker answers at 127.0.0.1:1" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
