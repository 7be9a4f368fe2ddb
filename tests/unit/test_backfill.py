"""Parts of a backfill: the range of the logs, what is read of it, its pace, how far it is, what is said."""

import pytest
from confluent_kafka import KafkaError, Message

from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from logistics.flows.tracking import flow as tracking
from streams.backfill.progress import Meter
from streams.backfill.request import (
    Request,
    ends_of,
    in_utc,
    options_of,
    parsed_time,
    require_can_be_rerun,
    starts_of,
)
from streams.backfill.switch import require_can_take_over
from streams.backfill.words import left_behind, status_of, switched_lines, version_row
from streams.errors import StreamsError, UsageError
from streams.flow.code import code_of_app
from streams.settings import Settings
from streams.sources.base import Polled
from streams.sources.kafka.arrivals import FromMessages
from streams.sources.kafka.range import Range, RangeIntake
from streams.versions.record import CurrentRecord, From, VersionRecord, Versions
from streams.worker.replay import CpuShare

BOUNDS = {0: (10, 100), 1: (0, 50)}
EOF = KafkaError(KafkaError._PARTITION_EOF)


class _Nobody:
    def assigned(self, partitions: list[int]) -> None: ...
    def revoked(self, partitions: list[int]) -> None: ...
    def lost(self, partitions: list[int]) -> None: ...
    def noted(self, membership: object | None) -> None: ...


class Arriving:
    """An intake of a range over two partitions, given what a consumer would bring."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, over: Range) -> None:
        self.intake = RangeIntake(Settings(), source="t", group="g", member="m", ownership=_Nobody(), over=over)
        self.intake._consumed.started = {0: 0, 1: 0}
        self.went_back: list[tuple[int, int]] = []
        self._brings: list[Message] = []
        monkeypatch.setattr(
            self.intake, "_consumed_in_python", lambda: [FromMessages(self._brings, {"t": 0})] if self._brings else []
        )
        monkeypatch.setattr(self.intake, "_consume_from", self._go_back)

    def poll(self, *messages: Message) -> Polled:
        self._brings = list(messages)
        return self.intake.poll()

    def _go_back(self, lane: int, offset: int) -> None:
        self.went_back.append((lane, offset))
        self.intake._consumed.start(lane, offset)


def record(partition: int, offset: int) -> Message:
    return Message(topic="t", partition=partition, offset=offset, key=b"k", value=b"v", timestamp=(1, 1_000))


def end(partition: int, offset: int) -> Message:
    return Message(topic="t", partition=partition, offset=offset, error=EOF)


def offsets(polled: Polled) -> list[tuple[int, int]]:
    found = polled.records
    return [] if found is None else list(zip(found.partition.tolist(), found.offset.tolist(), strict=True))


# --- what is read of a range ------------------------------------------------------------------------------------------


def test_records_beyond_the_end_are_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    arriving = Arriving(monkeypatch, Range({0: 2, 1: 1}))
    assert offsets(arriving.poll(record(0, 0), record(0, 1), record(0, 2), record(1, 0))) == [(0, 0), (0, 1), (1, 0)]
    assert arriving.poll(record(1, 1)).records is None
    assert arriving.intake.is_at_end({0: 2, 1: 1})


def test_a_range_is_not_over_before_what_was_handed_over_is_processed(monkeypatch: pytest.MonkeyPatch) -> None:
    arriving = Arriving(monkeypatch, Range({0: 2, 1: 0}))
    arriving.poll(record(0, 0), record(0, 1))
    assert not arriving.intake.is_at_end({0: 1, 1: 0})
    assert arriving.intake.is_at_end({0: 2, 1: 0})


def test_markers_at_the_end_need_no_record_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last offsets of a range may be markers of transactions, which nobody is given."""
    arriving = Arriving(monkeypatch, Range({0: 3, 1: 0}))
    arriving.poll(record(0, 0))
    assert not arriving.intake.is_at_end({0: 1, 1: 0})
    arriving.poll(end(0, 3))
    assert arriving.intake.is_at_end({0: 1, 1: 0})


def test_an_end_that_moves_has_what_was_left_out_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    over = Range({0: 1, 1: 0}, is_final=False)
    arriving = Arriving(monkeypatch, over)
    arriving.poll(record(0, 0), record(0, 1), record(0, 2))
    assert arriving.intake.is_at_end({0: 1, 1: 0})
    over.move({0: 3, 1: 0}, is_final=True)
    assert not arriving.intake.is_at_end({0: 1, 1: 0}), "the new end was not looked at"
    arriving.poll()
    assert arriving.went_back == [(0, 1)]
    assert offsets(arriving.poll(record(0, 1), record(0, 2))) == [(0, 1), (0, 2)]
    assert arriving.intake.is_at_end({0: 3, 1: 0})


def test_an_end_does_not_move_back() -> None:
    over = Range({0: 5, 1: 7}, is_final=False)
    over.move({0: 3, 1: 9}, is_final=False)
    assert over.ends == {0: 5, 1: 9}


def test_no_time_passes_but_at_the_end_of_a_closed_range(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_closed in (False, True):
        arriving = Arriving(monkeypatch, Range({0: 1, 1: 1}, is_closed=is_closed))
        assert arriving.poll(record(0, 0), end(0, 1), end(1, 0)).idle == {}
        assert bool(arriving.poll(record(1, 0)).idle) is is_closed
        first, second = (arriving.poll().idle for _ in range(2))
        if is_closed:
            assert first[0].until_ms < second[0].until_ms, "it goes on until nothing is left to release"


# --- pace -------------------------------------------------------------------------------------------------------------


def test_a_share_is_kept_by_pauses() -> None:
    pace, cpu_s, now_s = CpuShare(0.25, cores=2), 0.0, 100.0
    for _ in range(200):
        now_s += pace.pause_s(cpu_s, now_s) + 0.02
        cpu_s += 0.02
    assert cpu_s / (now_s - 100.0) == pytest.approx(0.5, rel=0.1)


def test_without_a_bound_there_are_no_pauses() -> None:
    pace = CpuShare(1.0, cores=2)
    assert [pace.pause_s(cpu_s, cpu_s / 8) for cpu_s in (0.0, 8.0, 16.0)] == [0.0, 0.0, 0.0]


def test_a_pause_is_short_and_what_is_owed_is_bounded() -> None:
    pace = CpuShare(0.01, cores=1)
    pace.pause_s(0.0, 0.0)
    assert pace.pause_s(1_000.0, 1.0) == 0.5
    assert pace.pause_s(1_000.0, 40.0) == 0.0


# --- the range --------------------------------------------------------------------------------------------------------


def test_without_times_all_that_there_is_is_processed() -> None:
    starts = starts_of(GPS, BOUNDS, None)
    assert starts == {0: 10, 1: 0}
    assert ends_of(GPS, BOUNDS, None, starts) == {0: 100, 1: 50}


def test_times_bound_the_range_and_none_is_outside_of_the_log() -> None:
    starts = starts_of(GPS, BOUNDS, {0: 4, 1: -1})
    assert starts == {0: 10, 1: 50}, "what is deleted already; and a partition with nothing after the time"
    assert ends_of(GPS, BOUNDS, {0: 30, 1: -1}, starts) == {0: 30, 1: 50}
    assert ends_of(GPS, BOUNDS, {0: 5, 1: 20}, starts) == {0: 10, 1: 50}, "no end is before the start"


def test_a_time_is_utc_unless_it_says_otherwise() -> None:
    assert parsed_time("--from", "2026-11-30T14:00:00") == parsed_time("--from", "2026-11-30T15:00:00+01:00")
    assert in_utc(parsed_time("--from", "2026-11-30T14:00:00.250Z")) == "2026-11-30T14:00:00.250Z"
    with pytest.raises(UsageError, match="--to 'soon'"):
        parsed_time("--to", "soon")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"inputs": ("a.csv",)}, "--source files"),
        ({"origin": From.FILES}, "name files"),
        ({"origin": From.DELTA}, "name a table"),
        ({"origin": From.DELTA, "inputs": ("a", "b")}, "one table"),
        ({"origin": From.FILES, "inputs": ("a",), "from_ms": 1}, "leave them out"),
        ({"from_ms": 5, "to_ms": 5}, "--from is before --to"),
    ],
)
def test_what_contradicts_itself_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Request("v2", **wrong)  # type: ignore[arg-type]


def test_other_options_than_the_first_are_refused_with_those_of_the_first() -> None:
    begun = Request("v2", from_ms=0, is_closed=True).record({}, {}, 0, "")
    assert options_of(begun) == "--source topic --from 1970-01-01T00:00:00.000Z --to now"
    Request("v2", from_ms=0, is_closed=True).require_same(begun)
    with pytest.raises(UsageError, match=r"--from 1970-01-01T00:00:00\.000Z --to now"):
        Request("v2", from_ms=0).require_same(begun)


def test_a_flow_whose_history_lies_elsewhere_is_refused() -> None:
    require_can_be_rerun(GPS, grown=False, origin=From.TOPIC)
    require_can_be_rerun(GPS, grown=True, origin=From.FILES)
    with pytest.raises(StreamsError, match="grown in place"):
        require_can_be_rerun(GPS, grown=True, origin=From.TOPIC)
    with pytest.raises(StreamsError, match="several topics"):
        require_can_be_rerun(tracking.pipeline, grown=False, origin=From.FILES)


# --- how far it is ----------------------------------------------------------------------------------------------------


def test_progress_is_over_the_range_and_the_end_follows_from_the_pace() -> None:
    meter = Meter({0: 100, 1: 0})
    meter.look({}, {0: 300, 1: 200}, 0.0)
    found = meter.look({0: 150, 1: 50}, {0: 300, 1: 200}, 10.0)
    assert (found.done, found.total, found.part, found.per_s, found.left_s) == (100, 400, 0.25, 10.0, 30.0)


def test_an_empty_range_is_over() -> None:
    assert Meter({}).look({}, {}, 0.0).part == 1.0


# --- versions ---------------------------------------------------------------------------------------------------------


def versions(**made: object) -> Versions:
    values = {"finished_ms": 5, "code": code_of_app(), **made}
    return Versions(CurrentRecord(), {"v2": VersionRecord("v2", **values)})  # type: ignore[arg-type]


def test_a_finished_version_of_this_code_takes_over() -> None:
    assert require_can_take_over(versions(), GPS, "v2").version == "v2"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"finished_ms": None}, "is not over"),
        ({"is_closed": True}, "is closed"),
        ({"code": "another"}, "other code"),
    ],
)
def test_one_that_nothing_goes_on_from_does_not(made: dict[str, object], said: str) -> None:
    with pytest.raises(StreamsError, match=said):
        require_can_take_over(versions(**made), GPS, "v2")


def test_nor_does_one_that_is_not_there_or_while_another_switch_goes_on() -> None:
    with pytest.raises(UsageError, match="no version v3"):
        require_can_take_over(versions(), GPS, "v3")
    with pytest.raises(StreamsError, match="switching to version v3"):
        require_can_take_over(Versions(CurrentRecord(going_to="v3"), versions().made), GPS, "v2")


def test_a_version_says_where_it_is_in_its_life() -> None:
    record = versions().made["v2"]
    said = {
        status_of(record, Versions(current))
        for current in (
            CurrentRecord(), CurrentRecord(going_to="v2"), CurrentRecord("v2"), CurrentRecord("", before="v2"),
        )
    }  # fmt: skip
    assert said == {"finished", "switching", "current", "kept"}
    row = version_row(GPS, record, versions())
    assert row["outputs"]["vehicles.state.v1"] == "vehicles.state.v1.run.v2"
    assert row["group"] == "streams.gps.run.v2"


def test_who_reads_outputs_by_their_names_is_named() -> None:
    said = list(left_behind(GPS, [GPS, ORDERS, tracking.pipeline]))
    assert said == [
        "the flow tracking reads gps.positions.v1.clean, which stands still then: declare the new topic there"
    ]


def test_a_switch_says_where_it_happened_and_how_to_go_back() -> None:
    lines = list(switched_lines(GPS, CurrentRecord("v2", None, "", {0: 1_234})))
    assert lines[0] == "gps: v2 is current; it goes on at gps.positions.v1-0 1,234"
    assert lines[-1].endswith("`streams backfill --flow gps --rollback` goes back")
