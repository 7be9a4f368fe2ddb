"""The stall watchdog: ends a worker that has work and makes no progress, so that its supervisor restarts it.

A stall is *silence*: for `STREAMS_STALL_S` seconds no record was processed, no cycle committed or aborted, no row
restored, and no wait reported (every wait goes through `streams.resilience.retry`, which reports it). Before a silent
worker is ended the broker is asked, by a client of the watchdog's own, whether there is anything to do. If it does not
answer it is away, which is waited out. If there is no lag the worker is idle, not stalled. Partitions that wait for the
registry, or whose restore reports that it cannot go on, do not count.

It ends the process without stopping it: what hangs cannot be stopped, and every state that a worker can be killed in
is one that it can be started from. The thread needs the interpreter lock; native code that never gives it back is
caught by `faulthandler`'s own timer a minute later.
"""

import asyncio
import faulthandler
import gc
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import AsyncGeneratorType, FrameType
from typing import Any, Final, Protocol

import structlog

from streams.errors import StreamsError
from streams.worker.vitals import Vitals

log = structlog.get_logger(__name__)

EXIT_STATUS: Final = 1
_NATIVE_MARGIN_S: Final = 60.0
_TICK_S_MAX: Final = 5.0
_STACK_FRAMES_MAX: Final = 40
_FRAMES: Final = ("cr_frame", "gi_frame", "ag_frame")
_AWAITS: Final = ("cr_await", "gi_yieldfrom", "ag_await")


class Watched(Protocol):
    """What the watchdog watches: one flow of the worker."""

    @property
    def vitals(self) -> Vitals:
        """Return the signs of life that the watchdog judges by."""

    def at_work(self) -> Mapping[int, tuple[int, int]]:
        """By partition that should be processed now: offset up to which all is taken, and the last one taken + 1."""

    def lags(self, at_work: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        """Records that are there and not committed, by partition, without those that have none.

        Raises:
            StreamsError: the broker does not answer.

        """

    def waits_for(self) -> str:
        """What it waits for, in one line."""


class Verdict(Enum):
    """What a silence means."""

    ALIVE = "alive"
    IDLE = "idle"
    WAITS = "waits for the broker"
    STALLED = "stalled"


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict and its reason."""

    verdict: Verdict
    text: str = ""


def judge(one: Watched, stall_s: float) -> Finding:
    """Decide whether a flow has stalled; asks the broker only if it has been silent for too long."""
    silence_s = one.vitals.silence_s()
    if silence_s < stall_s:
        return Finding(Verdict.ALIVE)
    at_work = one.at_work()
    if not at_work:
        return Finding(Verdict.IDLE)
    try:
        lags = one.lags(at_work)
    except StreamsError as error:
        return Finding(Verdict.WAITS, str(error))
    if not lags:
        return Finding(Verdict.IDLE)
    if one.vitals.silence_s() < stall_s:  # while the broker was asked
        return Finding(Verdict.ALIVE)
    return Finding(Verdict.STALLED, f"no progress for {silence_s:.0f} s; not committed, by partition: {lags}")


class Watchdog:
    """A thread that looks after the flows of a worker."""

    def __init__(
        self,
        stall_s: float,
        watched: Sequence[Watched],
        loop: asyncio.AbstractEventLoop,
        *,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._stall_s = stall_s
        self._watched = watched
        self._loop = loop
        self._end = end
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start watching; with a time of 0, do nothing."""
        if self._stall_s > 0:
            self._thread.start()

    def stop(self) -> None:
        """Stop watching: a worker that is being stopped is not judged."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        tick_s = min(self._stall_s / 10, _TICK_S_MAX)
        while True:
            # In case the interpreter lock never comes back to this thread.
            faulthandler.dump_traceback_later(self._stall_s + _NATIVE_MARGIN_S, exit=True)
            slept_at = time.monotonic()
            if self._stopped.wait(tick_s):
                return
            if time.monotonic() - slept_at > tick_s + self._stall_s / 2:
                self._forgive()  # the whole process was frozen, not the work
                continue
            for one in self._watched:
                self._look_at(one)

    def _forgive(self) -> None:
        for one in self._watched:
            one.vitals.sign()

    def _look_at(self, one: Watched) -> None:
        try:
            finding = judge(one, self._stall_s)
        except Exception:
            log.exception("the watchdog cannot judge")
            one.vitals.sign()
            return
        if finding.verdict is Verdict.STALLED:
            self._give_up(one, finding)
        elif finding.verdict is not Verdict.ALIVE:
            one.vitals.sign()
            if finding.verdict is Verdict.WAITS:
                log.warning("no progress: the broker does not answer; waiting for it", error=finding.text)

    def _give_up(self, one: Watched, finding: Finding) -> None:
        log.error("stalled", why=finding.text, waits_for=one.waits_for())
        for where, stack in all_stacks(self._loop):
            log.error("stack of what hangs or waits", where=where, stack=stack)
        sys.stderr.write(f"streams: stalled: {finding.text}; ending, to be started again (stacks are in the log)\n")
        sys.stderr.flush()
        self._end(EXIT_STATUS)


def all_stacks(loop: asyncio.AbstractEventLoop) -> list[tuple[str, str]]:
    """The stacks of all threads and all tasks of `loop`, the innermost frame last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = [
        (f"thread {names.get(ident, ident)}", _formatted(frame))
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 - the documented way to all threads
        if ident != threading.get_ident()
    ]
    try:
        tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    except RuntimeError:  # they come and go while another thread looks
        tasks = []
    return found + [(f"task {task.get_name()} of {task.get_coro()!r}", _task_stack(task)) for task in tasks]


def _formatted(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame, limit=-_STACK_FRAMES_MAX))


def _task_stack(task: "asyncio.Task[Any]") -> str:
    """The chain of coroutines that the task awaits: `Task.get_stack` shows the outermost one only."""
    lines: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None and len(lines) < _STACK_FRAMES_MAX:
        frame = next((found for name in _FRAMES if (found := getattr(awaited, name, None)) is not None), None)
        if frame is None and (generator := _generator_of(awaited)) is not None:
            awaited = generator
            continue
        if frame is None:
            lines.append(f"  awaits {awaited!r}\n")
            break
        lines.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno}, in {frame.f_code.co_name}\n')
        awaited = next((found for name in _AWAITS if (found := getattr(awaited, name, None)) is not None), None)
    return "".join(lines)


def _generator_of(awaited: object) -> AsyncGeneratorType[Any, Any] | None:
    """The asynchronous generator that a step belongs to, found through the garbage collector."""
    return next((one for one in gc.get_referents(awaited) if isinstance(one, AsyncGeneratorType)), None)
