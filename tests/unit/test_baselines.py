from pathlib import Path

import pytest

from loadtest.baselines import run
from loadtest.baselines.kafka_streams.build import load_lock
from loadtest.baselines.vehicle import fold
from loadtest.generator.measure import Rates
from loadtest.report import Results, Run
from loadtest.subject import Drain
from streams.errors import StreamsError


def test_the_report_says_how_many_times_as_much_a_worker_does_as_each_baseline() -> None:
    rates = {"bench-gps": 100_000.0, "bench-faust": 1_000.0, "bench-quix": 5_000.0}
    runs = [Run(name, 12, 1, 10, events_per_cpu_second=rate) for name, rate in rates.items()]
    assert Results("x", runs, machine={}).ratios() == {"faust": 100.0, "quix": 20.0}


def test_kafka_streams_is_compared_cold_warm_and_at_a_steady_rate() -> None:
    rates = {
        "bench-gps": 200_000.0, "bench-kafka-streams": 50_000.0, "bench-kafka-streams-warm": 100_000.0,
        "bench-steady": 40_000.0, "bench-steady-kafka-streams": 80_000.0,
    }  # fmt: skip
    runs = [Run(name, 12, 1, 10, events_per_cpu_second=rate) for name, rate in rates.items()]
    assert Results("x", runs, machine={}).ratios() == {
        "kafka_streams": 4.0, "kafka_streams_warm": 2.0, "steady_kafka_streams": 0.5,
    }  # fmt: skip


def test_the_second_half_of_a_drain_is_what_came_after_its_middle() -> None:
    class Program:
        cpu_s = 7.0

        def usage(self) -> tuple[float, float]:
            return self.cpu_s, 100.0

    half = run.Half(Program(), 500)  # type: ignore[arg-type]  # as far as it is asked
    half.note(499)
    before = half.passed
    assert before is None
    half.note(600)
    half.note(900)
    passed = half.passed
    assert passed is not None
    done, cpu_s, then_s = passed
    assert (600, 7.0) == (done, cpu_s)

    found = run.second_half(Drain(1_000, 50.0, 100.0, 1.0), half, 9.0, then_s + 4.0)
    assert (400, 100.0, 200.0) == (found.events, found.events_per_second, found.events_per_cpu_second)


def test_every_file_of_the_kafka_streams_baseline_is_locked_once() -> None:
    lock = load_lock()
    names = [artifact.artifact for artifact in lock.program.artifacts]
    assert len(names) == len(set(names))
    assert {"kafka-streams", "kafka-clients", "rocksdbjni", "avro"} <= set(names)
    assert len({artifact.version for artifact in lock.program.artifacts if artifact.group == "org.apache.kafka"}) == 1


def test_without_an_environment_for_quix_it_is_said_what_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "QUIX_PYTHON", Path("/nowhere/python"))
    with pytest.raises(StreamsError, match="make loadtest-baselines"):
        run.find_quix()


class Moment:
    def __init__(self, seconds: int) -> None:
        self._seconds = seconds

    def timestamp(self) -> int:
        return self._seconds


def test_the_row_of_a_baseline_adds_up() -> None:
    row = None
    for second, latitude, speed in ((1, 50.0, 10.0), (2, 50.1, None), (3, 50.1, 1.0)):
        event = {"event_time": Moment(second), "sequence": second, "latitude": latitude, "longitude": 8.0}
        row = fold(row, {**event, "speed_kmh": speed})
    assert row is not None
    assert (row["events"], row["last_sequence"], row["stopped_since"]) == (3, 3, 3_000)
    assert row["odometer_km"] == pytest.approx(11.12, abs=0.01)
    assert (row["speed_sum"], row["speeds"], row["speed_max_kmh"]) == (11.0, 2, 10.0)


def test_rates_are_compared_by_their_medians() -> None:
    found = Rates([100.0, 300.0, 200.0], [150.0, 160.0, 170.0], 2.0, 2.5).as_dict()
    assert (found["generated_per_s"], found["raw_produce_per_s"]) == (160, 200)
    assert (found["ratio"], found["cpu_ratio"]) == (0.8, 0.8)
