"""The demo from start to end: everything is started, shown, and stopped again."""

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.live import Live

from streams.demo import view
from streams.demo.start import Demo, DemoOptions, start
from streams.demo.steps import Steps
from streams.demo.worker_probe import READY
from streams.interrupts import Interrupts

REFRESH_S: Final = 0.5
LINE_INTERVAL_S: Final = 2.0


def run_demo(options: DemoOptions, console: Console) -> None:
    """Start everything, show it until interrupted or until the time is over, stop what was started.

    Whatever ends it, and whenever (a signal during the start included), nothing that it started is left: the feeder
    stops first, then the worker, then the stack unless it ran before. An interrupt while it is shown is its normal end.

    Raises:
        StreamsError: something could not start, or ended by itself.
        KeyboardInterrupt: interrupted before there was anything to see.

    """
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
            watch = _Watch(demo, console)
            try:
                watch.run(interrupts)
            except KeyboardInterrupt:
                pass  # the normal end
            finally:
                interrupts.ignore()
            stopping = "the traffic and the worker" if demo.left_running else "the traffic, the worker and the stack"
            steps.note(f"Stopping {stopping} ...")
    if watch.last is not None:
        steps.note(view.summary(watch.last, demo.feeder.describe_all()))
    steps.note(f"Logs and data stay in {options.directory}.")


class _Watch:
    """Looks at a running demo and shows what it sees."""

    def __init__(self, demo: Demo, console: Console) -> None:
        self._demo = demo
        self._console = console
        self._started_s = self._ready_since_s = time.monotonic()
        self._kills = 0
        self.last: view.Snapshot | None = None

    def run(self, interrupts: Interrupts) -> None:
        """Show snapshots until the time is over.

        Raises:
            StreamsError: something has ended by itself.
            KeyboardInterrupt: asked to stop.

        """
        seconds = self._demo.options.seconds
        with self._shown() as show:
            while True:
                interrupts.check()
                now_s = time.monotonic()
                self.last = self._snapshot(now_s)
                show(self.last)
                if seconds is not None and now_s - self._started_s >= seconds:
                    return
                self._kill_if_due(self.last, now_s)
                self._demo.check()
                time.sleep(max(0.0, now_s + REFRESH_S - time.monotonic()))

    def _snapshot(self, now_s: float) -> view.Snapshot:
        demo = self._demo
        return view.Snapshot(
            now=datetime.now(UTC),
            elapsed_s=now_s - self._started_s,
            feeding=demo.feeder.describe(),
            worker=demo.worker_probe.sample(now_s),
            lag=demo.lag_probe.sample(),
            vehicles=demo.vehicles.sample(),
            orders=demo.orders.sample(),
            kills=self._kills,
        )

    def _kill_if_due(self, shot: view.Snapshot, now_s: float) -> None:
        interval_s = self._demo.options.kill_interval_s
        if shot.worker.state != READY:
            self._ready_since_s = now_s
        elif interval_s is not None and now_s - self._ready_since_s >= interval_s:
            self._demo.worker.check()
            self._demo.worker.kill()
            self._demo.worker_probe.restarted()
            self._demo.worker.start()
            self._kills += 1
            self._ready_since_s = now_s

    @contextmanager
    def _shown(self) -> Generator[Callable[[view.Snapshot], None]]:
        """How a snapshot is shown: in place in a terminal, as a line now and then elsewhere."""
        place = view.Place(self._demo.options.directory, self._demo.metrics_url)
        if self._console.is_terminal:
            with Live(console=self._console, auto_refresh=False) as live:
                yield lambda shot: live.update(view.screen(shot, place, self._console.width), refresh=True)
            return
        next_s = 0.0

        def print_line(shot: view.Snapshot) -> None:
            nonlocal next_s
            if shot.elapsed_s >= next_s:
                next_s = shot.elapsed_s + LINE_INTERVAL_S - REFRESH_S / 2
                self._console.print(view.line(shot), markup=False, highlight=False, soft_wrap=True)

        yield print_line
