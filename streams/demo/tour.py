"""The guided tour: one chapter after the other, each with a text, something that happens, and a pause."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from streams.demo.control import Control
from streams.demo.parts import Demo
from streams.demo.snapshot import Snapshot
from streams.demo.troubles.poison import van_prefix
from streams.demo.view import duration, order_line
from streams.demo.worker_probe import READY
from streams.text import printable

PAUSE_S: Final = 18.0
PAUSE_FAST_S: Final = 1.0
PATIENCE_S: Final = 90.0
"""How long a chapter waits for what it wants to show, before it says so and goes on."""
EVENTS_MIN: Final = 5
GOES_ON: Final = "Enter or space: go on now   q: quit"
REPAIR: Final = "streams.demo.troubles.poison:degrees"
COMMAND_S_MAX: Final = 90.0


@dataclass(frozen=True, slots=True)
class Chapter:
    """A step of the tour."""

    title: str
    text: Callable[[Snapshot], str]
    waits_for: Callable[[Snapshot], bool] = lambda _: True
    """When this is true, the chapter's text is printed."""
    key: str = ""
    """Pressed after the text; the chapter ends when the effect was counted."""
    command: tuple[str, ...] = ()
    """A `streams` command that is run after the text; its output is shown."""


class Tour:
    """Leads through the chapters; `look` is called again and again."""

    def __init__(self, demo: Demo, control: Control, say: Callable[[str], None]) -> None:
        self._control, self._say = control, say
        self._pause_s = PAUSE_FAST_S if demo.options.is_fast else PAUSE_S
        self._environment = dict(demo.environment)
        self._chapters = chapters(demo, self.lag_words)
        self._number = 0
        self._since_s: float | None = None
        self._said_s: float | None = None
        self._skips_pause = False
        self._command: subprocess.Popen[str] | None = None
        self._lag_max: dict[str, int] = {}
        self._verdicts: dict[str, set[str]] = {}

    @property
    def is_over(self) -> bool:
        """Whether the last chapter has ended."""
        return self._number >= len(self._chapters)

    def go_on(self) -> None:
        """Skip the pause of this chapter."""
        self._skips_pause = True

    def look(self, shot: Snapshot) -> None:
        """Do what is due.

        Raises:
            StreamsError: what a chapter does has failed.

        """
        self._note_lag(shot)
        if self.is_over:
            return
        chapter = self._chapters[self._number]
        self._since_s = shot.elapsed_s if self._since_s is None else self._since_s
        if self._said_s is None:
            self._begin(chapter, shot)
        elif self._command is not None:
            self._look_at_command(shot.elapsed_s)
        elif self._control.is_busy:
            self._said_s = shot.elapsed_s  # the pause begins when it was counted
        elif self._skips_pause or shot.elapsed_s - self._said_s >= self._pause_s:
            self._number += 1
            self._since_s = self._said_s = None
            self._skips_pause = False

    def close(self) -> None:
        """Stop a command that is still running."""
        if self._command is not None:
            self._command.kill()
            self._command.wait()

    def lag_words(self) -> str:
        """The lag seen during the tour, in words."""
        return "; ".join(
            f"{group}: {lag:,} records at most, judged {', '.join(sorted(self._verdicts[group]))}"
            for group, lag in sorted(self._lag_max.items())
        )

    def _begin(self, chapter: Chapter, shot: Snapshot) -> None:
        waited_s = shot.elapsed_s - (self._since_s or 0.0)
        has_come = chapter.waits_for(shot)
        if not has_come and waited_s < PATIENCE_S:
            return
        text = chapter.text(shot) if has_come else f"Not seen within {PATIENCE_S:.0f} s; going on without it."
        self._say(f"[{self._number + 1}/{len(self._chapters)}] {chapter.title}. {text}")
        self._said_s = shot.elapsed_s
        if not has_come:
            return
        if chapter.key:
            self._control.press(chapter.key, shot)
        if chapter.command:
            self._command = subprocess.Popen(
                [sys.executable, "-P", "-m", "streams", *chapter.command],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, start_new_session=True,
            )  # fmt: skip

    def _look_at_command(self, now_s: float) -> None:
        command = self._command
        assert command is not None  # noqa: S101 - for the type checker
        if command.poll() is None:
            if now_s - (self._since_s or 0.0) > COMMAND_S_MAX:
                command.kill()
            return
        printed = command.stdout.read() if command.stdout is not None else ""
        self._command = None
        self._said_s = now_s
        self._say(f"{printed.strip()}\n(status {command.returncode})")

    def _note_lag(self, shot: Snapshot) -> None:
        for group, reading in shot.monitor.groups.items():
            self._lag_max[group] = max(self._lag_max.get(group, 0), reading.lag)
            self._verdicts.setdefault(group, set()).add(reading.status)


def chapters(demo: Demo, lag_words: Callable[[], str]) -> tuple[Chapter, ...]:
    """The chapters of the tour. `lag_words`: what was seen of lag."""
    links, flow = demo.links, demo.flow
    vans = [word for number in range(1, 6) for word in ("--device", f"{van_prefix(demo)}{number}")]
    repair = ("dlq", "replay", *vans, "--reason", "invalid", "--transform", REPAIR, "--why", "degrees were scaled")
    return (
        Chapter(
            "What runs",
            lambda _: (
                "Kafka, a schema registry, one worker with four flows, the monitor and the gateway, all on this "
                "machine. "
                f"Open {links.fleet} (map) and {links.monitor} (monitor). The gateway takes events by POST at "
                f"{links.gateway}."
            ),
        ),
        Chapter(
            "Traffic",
            lambda shot: (
                f"Fed are now: {shot.feeding}. Some come twice, some in disorder, some late, some broken. "
                f"Of them become: {demo_rates(shot)}. The mean time from event to commit contains the five seconds "
                "for which events are waited for, so that they can be put in order."
            ),
            waits_for=lambda shot: simulated(shot, demo) and shot.monitor.groups != {},
        ),
        Chapter(
            "A vehicle's row",
            lambda shot: (
                f"{vehicle_words(shot)} This is its newest row in the compacted topic {flow.tables[0].topic}, as "
                "any consumer reads it; on the map it is a point."
            ),
            waits_for=lambda shot: shot.vehicles[-1].events >= EVENTS_MIN,
        ),
        Chapter(
            "An order",
            lambda shot: (
                f"{order_line(shot.orders, shot.now)}. The flow tracking joins orders with the positions of their "
                "vehicles as of event time (orders.tracking.v1, deliveries.verified.v1)."
            ),
            waits_for=lambda shot: shot.orders.followed is not None,
        ),
        Chapter(
            "A tunnel", lambda _: "Vehicles without a connection store what they see and send it later.", is_ready, "t"
        ),
        Chapter("Poison", lambda _: "Broken records must neither stop a flow nor be lost.", is_ready, "p"),
        Chapter(
            "Repair and replay",
            lambda _: (
                "The five records with degrees times ten million can be repaired. What runs now: streams "
                f"dlq replay --device ... --reason invalid --transform {REPAIR}. "
                f"The others stay where they are, until somebody discards them with a reason ({links.dead_letters})."
            ),
            command=repair,
        ),
        Chapter(
            "A killed worker", lambda _: "Its state is on disk and in the journal, its place in Kafka.", is_ready, "w"
        ),
        Chapter(
            "What lag showed",
            lambda _: (
                "The monitor judged each group by how its lag moved over two minutes, not by its size. Seen during "
                f"the tour: {lag_words()}. {links.monitor} shows why, by partition."
            ),
        ),
        Chapter(
            "The end", lambda _: "Everything is stopped now; `make run` goes on where it was. Docs: docs/try-it.md."
        ),
    )


def is_ready(shot: Snapshot) -> bool:
    """Whether the worker can be disturbed."""
    return shot.worker.state == READY


def demo_rates(shot: Snapshot) -> str:
    """What becomes of positions now, in words."""
    flow = next(iter(shot.worker.flows.values()))
    return ", ".join(f"{rate:,.0f} {name} a second" for name, rate in flow.rates.items())


def simulated(shot: Snapshot, demo: Demo) -> bool:
    """Whether a row of a simulated vehicle is known."""
    return any(one.device.startswith(demo.feeder.device_prefix) for one in shot.vehicles)


def vehicle_words(shot: Snapshot) -> str:
    """The last vehicle of those shown, in words."""
    one = shot.vehicles[-1]
    speed = "unknown" if one.speed_mean_kmh is None else f"{one.speed_mean_kmh:.0f} km/h"
    seen = duration((shot.now - one.last_seen).total_seconds())
    return (
        f"{printable(one.device)}: {one.events:,} events, {one.odometer_km:,.1f} km, mean speed {speed}, last seen "
        f"{seen} ago, "
        f"{'moving' if one.stopped_since is None else 'standing'}."
    )
