"""The demo from start to end: everything is started, shown, disturbed on a keypress, and stopped again."""

import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.live import Live

from streams.demo import view
from streams.demo.control import Control
from streams.demo.keys import Keys
from streams.demo.parts import Demo, DemoOptions
from streams.demo.sinks import Targets
from streams.demo.snapshot import Snapshot
from streams.demo.start import start
from streams.demo.steps import Steps
from streams.demo.tour import GOES_ON, Tour
from streams.demo.worker_probe import READY
from streams.errors import StreamsError
from streams.interrupts import Interrupts

REFRESH_S: Final = 0.5
LINE_INTERVAL_S: Final = 2.0
SAID_SHOWN_S: Final = 45.0
"""How long the newest text stays in the live view; it is also printed above it."""


def run_demo(options: DemoOptions, console: Console) -> None:
    """Start everything, show it until interrupted or until the time is over, stop what was started.

    Whatever ends it, and whenever (a signal during the start included), nothing that it started is left: the feeder
    stops first, then the worker, monitor and gateway, then the stack unless it ran before. An interrupt while it is
    shown is its normal end.

    Raises:
        StreamsError: something could not start, or ended by itself.
        KeyboardInterrupt: interrupted before there was anything to see.

    """
    began_s = time.monotonic()
    with Interrupts() as interrupts:
        steps = Steps(console)
        with ExitStack() as cleanup:
            with steps:
                try:
                    demo = start(options, cleanup, interrupts, steps)
                except BaseException:
                    interrupts.ignore()
                    steps.detail("stopping what was started")
                    raise
            steps.note(f"Ready after {time.monotonic() - began_s:.0f} s.")
            for text in [*view.links_lines(demo.links), *(() if demo.targets is None else demo.targets.lines())]:
                steps.note(f"  {text}")
            watch = _Watch(demo, console)
            try:
                watch.run(interrupts)
            except KeyboardInterrupt:
                pass  # the normal end
            finally:
                interrupts.ignore()
            if demo.targets is not None:
                steps.note(_answer(demo.targets))
            stopping = "the traffic and the processes" if demo.left_running else "the traffic, the processes, the stack"
            steps.note(f"Stopping {stopping} ...")
    if watch.last is not None:
        steps.note(view.summary(watch.last, demo.feeder.describe_all(), watch.control.counted))
    steps.note(f"Logs and data stay in {options.directory}.")


def _answer(targets: Targets) -> str:
    """The answer of a query over both targets; or why it cannot be asked."""
    try:
        return f"One query over both targets of the sinks:\n\n{targets.answer()}"
    except StreamsError as error:
        return str(error)


class _Watch:
    """Watches a running demo, shows its state, and reacts to keys."""

    def __init__(self, demo: Demo, console: Console) -> None:
        self._demo = demo
        self._console = console
        self._started_s = self._ready_since_s = time.monotonic()
        self._said: deque[tuple[float, str]] = deque(maxlen=1)
        self.control = Control(demo, self._say)
        self._tour = Tour(demo, self.control, self._say) if demo.options.is_tour else None
        self.last: Snapshot | None = None

    def run(self, interrupts: Interrupts) -> None:
        """Show snapshots until the time or the tour is over, or `q` is pressed.

        Raises:
            StreamsError: something has ended by itself.
            KeyboardInterrupt: asked to stop.

        """
        seconds = self._demo.options.seconds
        with Keys() as keys, self._shown() as show:
            try:
                while True:
                    interrupts.check()
                    now_s = time.monotonic()
                    self.last = self._snapshot(now_s)
                    show(self.last)
                    if seconds is not None and now_s - self._started_s >= seconds:
                        return
                    self._kill_if_due(self.last, now_s)
                    self._demo.check(self.last.followed)
                    self.control.look(self.last)
                    if self._tour is not None:
                        self._tour.look(self.last)
                        if self._tour.is_over:
                            return
                    pressed = keys.wait(max(0.0, now_s + REFRESH_S - time.monotonic()))
                    if "q" in pressed:
                        return
                    for key in pressed:
                        self._press(key, self.last)
            finally:
                self.control.close()
                if self._tour is not None:
                    self._tour.close()

    def _press(self, key: str, shot: Snapshot) -> None:
        if self._tour is None:
            self.control.press(key, shot)
        elif key in {"\n", "\r", " "}:
            self._tour.go_on()

    def _say(self, text: str) -> None:
        self._said.append((time.monotonic(), text))
        self._console.print(text, markup=False, highlight=False, soft_wrap=not self._console.is_terminal)

    def _snapshot(self, now_s: float) -> Snapshot:
        demo = self._demo
        return Snapshot(
            now=datetime.now(UTC),
            elapsed_s=now_s - self._started_s,
            feeding=demo.feeder.describe(),
            worker=demo.worker_probe.sample(now_s),
            lag=demo.lag_probe.sample(),
            monitor=demo.monitor_probe.sample(now_s),
            vehicles=demo.vehicles.sample(),
            orders=demo.orders.sample(),
            kills=self.control.kills,
        )

    def _kill_if_due(self, shot: Snapshot, now_s: float) -> None:
        interval_s = self._demo.options.kill_interval_s
        if shot.worker.state != READY:
            self._ready_since_s = now_s
        elif interval_s is not None and now_s - self._ready_since_s >= interval_s:
            self.control.restart_worker()
            self._ready_since_s = now_s

    @contextmanager
    def _shown(self) -> Generator[Callable[[Snapshot], None]]:
        """How a snapshot is shown: in place in a terminal, as a line now and then elsewhere."""
        place = view.Place(self._demo.options.directory, self._demo.links)
        if self._console.is_terminal:
            with Live(console=self._console, auto_refresh=False) as live:
                hint = view.KEYS_LINE if self._tour is None else GOES_ON
                yield lambda shot: live.update(view.screen(shot, place, self._still_said(), hint), refresh=True)
            return
        next_s = 0.0

        def print_line(shot: Snapshot) -> None:
            nonlocal next_s
            if shot.elapsed_s >= next_s:
                next_s = shot.elapsed_s + LINE_INTERVAL_S - REFRESH_S / 2
                self._console.print(view.line(shot), markup=False, highlight=False, soft_wrap=True)

        yield print_line

    def _still_said(self) -> list[str]:
        now_s = time.monotonic()
        return [text for said_s, text in self._said if now_s - said_s < SAID_SHOWN_S]
