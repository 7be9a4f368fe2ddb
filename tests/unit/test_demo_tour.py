"""The tour goes through its chapters, and what is said of troubles is what an audit has found."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self, cast

from logistics.flows.gps import GPS
from streams.demo.audit import Findings
from streams.demo.control import Control
from streams.demo.monitor_probe import GroupReading, MonitorReading
from streams.demo.parts import Demo
from streams.demo.snapshot import Snapshot
from streams.demo.tour import Tour
from streams.demo.troubles.killed_worker import PATIENCE_S, KilledWorker
from tests.unit.test_demo_view import LINKS, shot

FOUND = Findings(events=61_204, missing=0, doubled=0, outcomes=Counter())


class Audited:
    """An audit of a flow that has put everything out; it has no topics."""

    is_complete = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def take_in(self) -> None:
        pass

    def end(self) -> None:
        pass

    def findings(self) -> Findings:
        return FOUND


class Parts:
    """What troubles and the tour take of a demo."""

    links, flow = LINKS, GPS

    def audit(self, _: Callable[[bytes], bool]) -> Audited:
        return Audited()


def demo() -> Demo:
    return cast("Demo", Parts())


def at(elapsed_s: float, *, state: str = "ready", lag: int = 700) -> Snapshot:
    one = shot()
    return replace(one, elapsed_s=elapsed_s, lag={0: lag}, worker=replace(one.worker, state=state))


def test_a_killed_worker_is_timed_until_it_has_caught_up() -> None:
    restarts: list[None] = []
    trouble = KilledWorker(demo(), 700, lambda: restarts.append(None))
    assert [None] == restarts
    assert LINKS.fleet in trouble.explain()

    said = [
        trouble.look(at(10, state="not answering")),
        trouble.look(at(18, lag=23_412)),
        trouble.look(at(24, lag=900)),
        trouble.look(at(25)),
    ]

    assert said[:3] == [None] * 3
    assert said[3] == (
        "The worker was ready again after 8 s; it had caught up after 14 s; the lag was 23,412 records at most. "
        "Of 61,204 different events that came meanwhile: 0 lost, 0 doubled."
    )


def test_one_that_does_not_catch_up_is_counted_all_the_same() -> None:
    trouble = KilledWorker(demo(), 0, lambda: None)
    assert trouble.look(at(0, lag=9_000)) is None
    assert trouble.look(at(PATIENCE_S + 1, lag=99_000)) is None
    said = trouble.look(at(PATIENCE_S + 2, lag=99_000))
    assert said is not None
    assert said.startswith("The worker was ready again after 0 s; it had not caught up; the lag was 99,000 records")


class Pressed:
    """A control whose troubles take two looks."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self._left = 0

    @property
    def is_busy(self) -> bool:
        self._left -= 1
        return self._left > 0

    def press(self, key: str, _: Snapshot) -> None:
        self.keys.append(key)
        self._left = 2


class Running:
    """A demo of which everything is there."""

    def __init__(self) -> None:
        self.links, self.flow = LINKS, GPS
        self.environment: dict[str, str] = {}
        self.options: Any = type("Options", (), {"is_fast": True})
        self.feeder: Any = type("Feeder", (), {"device_prefix": "truck-1200-", "is_simulating": True})


def test_the_tour_says_every_chapter_once_and_makes_each_trouble() -> None:
    said: list[str] = []
    control = Pressed()
    tour = Tour(cast("Demo", Running()), cast("Control", control), said.append)
    monitor = MonitorReading({"streams.gps": GroupReading(40, "OK")})
    for second in range(600):
        now = replace(
            at(float(second)),
            monitor=monitor if second < 6 else MonitorReading({"streams.gps": GroupReading(9_000, "WARN")}),
        )
        if tour.is_over:
            break
        tour.look(now)
        time.sleep(0.005)  # the repair is a process: it is ended when it takes too long

    assert tour.is_over
    headings = [text.partition(".")[0] for text in said if text.startswith("[")]
    assert headings == [
        "[1/10] What runs", "[2/10] Traffic", "[3/10] A vehicle's row", "[4/10] An order", "[5/10] A tunnel",
        "[6/10] Poison", "[7/10] Repair and replay", "[8/10] A killed worker", "[9/10] What lag showed",
        "[10/10] The end",
    ]  # fmt: skip
    assert control.keys == ["t", "p", "w"]
    assert any("streams.gps: 9,000 records at most, judged OK, WARN" in text for text in said)
    assert any("Not seen within" in text for text in said), "no order was on its way"
