"""`streams worker --processes N`: starts, watches, queries and stops N workers on one machine as one.

Each is a worker like any other: a member of the group with a data directory (`<data-dir>/<number>`) and an identity of
its own. The supervisor touches no Kafka. What an end of one means is decided in `restarts.py`.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from streams.errors import FencedError, StreamsError, UsageError
from streams.limits import RUNTIME_MB
from streams.listening import listening
from streams.settings import MEMORY_MB_MIN, Settings
from streams.text import counted
from streams.worker.lifeline import Supervised
from streams.worker.owner import DirectoryLock
from streams.worker.restarts import EndAll, Restart, Restarts, ending
from streams.worker.supervisor_tables import PassedOn
from streams.worker.supervisor_web import Asked, SupervisorWeb

log = structlog.get_logger(__name__)

STOP_S_MAX: Final = 25.0
"""How long the processes may take to stop in order before they are killed: less than orchestrators give (30 s)."""
_ERRORS: Final = {error.exit_status: error for error in (StreamsError, UsageError, FencedError)}


def memory_share_mb(settings: Settings, processes: int) -> int:
    """What each process has of `STREAMS_MEMORY_MB_MAX`; the supervisor takes `RUNTIME_MB` of it.

    Raises:
        UsageError: it is too little for so many.

    """
    share = (settings.streams_memory_mb_max - RUNTIME_MB) // processes
    if share < MEMORY_MB_MIN:
        raise UsageError(
            f"STREAMS_MEMORY_MB_MAX ({settings.streams_memory_mb_max}) is too little for "
            f"{counted(processes, 'process')}: set it to {MEMORY_MB_MIN * processes + RUNTIME_MB} or more"
        )
    return share


class SharedDirectory:
    """The data directory of all processes: locked, with a subdirectory for each."""

    def __init__(self, path: Path, processes: int) -> None:
        """Lock the directory.

        Raises:
            UsageError: it holds the state of a single worker.
            StreamsError: another worker has it, or it cannot be written.

        """
        self.path = path
        if (path / "worker.id").exists():
            raise UsageError(
                f"{path} holds the state of a single worker: to go on with it as that of process 0, run "
                f"`mv {path} {path}.single && mkdir {path} && mv {path}.single {path}/0`"
            )
        self._lock = DirectoryLock(path)
        left = sorted(int(one.name) for one in path.iterdir() if one.name.isdecimal() and int(one.name) >= processes)
        if left:
            log.warning(
                "state of processes that are not started: other processes have its partitions; delete it to free space",
                directories=[str(path / str(number)) for number in left],
            )  # fmt: skip

    def of(self, number: int) -> Path:
        """Data directory of one process."""
        return self.path / str(number)

    def release(self) -> None:
        """Unlock the directory."""
        self._lock.release()


class Supervisor:
    """All processes of one `streams worker --processes N`; `run` blocks until they are stopped."""

    def __init__(self, settings: Settings, options: Sequence[str], *, processes: int, web_port: int | None) -> None:
        """Check what can be checked before a process is started. `options`: of `streams worker`, for each process.

        Raises:
            UsageError: too little memory for so many; the data directory holds the state of a single worker.
            StreamsError: the data directory or the port is taken.

        """
        memory_share_mb(settings, processes)
        self._options = list(options)
        self._directory = SharedDirectory(settings.streams_data_dir, processes)
        self._lifeline, self._held = os.pipe()
        self._processes = [
            _Process(
                Supervised(number, processes, listening(settings.streams_web_host, [0]).detach(), self._lifeline),
                [*self._options, "--data-dir", str(self._directory.of(number))],
            )
            for number in range(processes)
        ]
        self._web = SupervisorWeb(
            self._processes, host=settings.streams_web_host, port=web_port, tables=PassedOn(settings, self._processes)
        )
        self._stopping = asyncio.Event()
        self._signals = 0
        self._end: tuple[int, EndAll] | None = None
        """The process whose end ended all, and why."""

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or SIGHUP; every process has ended on return.

        Raises:
            FencedError: a process was fenced.
            UsageError: a process refused its options.
            StreamsError: a process failed for good, or had to be killed.

        """
        try:
            killed = asyncio.run(self._run())
        finally:
            os.close(self._held)
            self._directory.release()
        if self._end is not None:
            number, end = self._end
            raise _ERRORS[end.status](f"process {number}: {end.why}; the log says more. All have ended")
        if killed:
            raise StreamsError(
                f"{counted(len(killed), 'process')} did not stop within {STOP_S_MAX:g} s and had to be killed: "
                "as after a crash, nothing is lost"
            )

    async def _run(self) -> list[int]:
        """Run all processes; returns the numbers of those that had to be killed."""
        loop = asyncio.get_running_loop()
        for how in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(how) is not signal.SIG_IGN:
                loop.add_signal_handler(how, self._asked_to_stop)
        await self._web.start()
        kept = [asyncio.create_task(self._keep(process)) for process in self._processes]
        await self._stopping.wait()
        for process in self._processes:
            process.signal(signal.SIGTERM)
        _, late = await asyncio.wait(kept, timeout=STOP_S_MAX)
        killed = [process.number for process in self._processes if process.is_running]
        for process in self._processes:
            process.signal(signal.SIGKILL)
        if late:
            log.error("processes did not stop and are killed", processes=killed)
        await self._web.stop()
        await asyncio.gather(*kept)
        return killed if self._signals < 2 else []

    async def _keep(self, process: "_Process") -> None:
        """Keep one process running until all are stopped, or until its end ends all."""
        restarts = Restarts()
        try:
            while not self._stopping.is_set():
                status = await process.run(self._stopping)
                if self._stopping.is_set():
                    return
                next_ = restarts.ended(status, was_ready=process.was_ready, ran_s=process.ran_s)
                match next_:
                    case EndAll():
                        log.error("a process has ended, and all end", process=process.number, how=ending(status))
                        self._end = self._end or (process.number, next_)
                        return
                    case Restart(pause_s):
                        log.error(
                            "a process has ended by itself and is started again",
                            process=process.number, how=ending(status), restart_in_s=pause_s,
                        )  # fmt: skip
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._stopping.wait(), pause_s)
                        self._web.restarted(process.number)
        finally:
            self._stopping.set()

    def _asked_to_stop(self) -> None:
        """Stop all processes cleanly; at a second request, at once."""
        self._signals += 1
        self._stopping.set()
        if self._signals > 1:
            for process in self._processes:
                process.signal(signal.SIGKILL)


class _Process(Asked):
    """One worker, run after run."""

    def __init__(self, supervised: Supervised, options: Sequence[str]) -> None:
        super().__init__(supervised.number, supervised.web)
        self._supervised = supervised
        self._command = [sys.executable, "-P", "-m", "streams", "worker", *options, "--supervised", str(supervised)]
        self._process: asyncio.subprocess.Process | None = None
        self._started_s = 0.0
        self.was_ready = False
        """Whether the latest run became ready at some time."""
        self.ran_s = 0.0
        """Seconds that the latest run has lasted."""

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    def signal(self, how: signal.Signals) -> None:
        """Send a signal if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(how)

    async def run(self, stopping: asyncio.Event) -> int:
        """Start it, and wait for its end; returns its exit status, or minus the number of the signal."""
        self.was_ready = False
        self._started_s = time.monotonic()
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which then stops all in order.
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(self._supervised.web, self._supervised.lifeline),
        )
        if stopping.is_set():
            self.signal(signal.SIGTERM)
        watch = asyncio.create_task(self._await_ready())
        try:
            return await self._process.wait()
        finally:
            watch.cancel()
            self.ran_s = time.monotonic() - self._started_s

    async def _await_ready(self) -> None:
        while not self.was_ready:
            self.was_ready = (await self.readiness()).is_ready
            await asyncio.sleep(1.0)
