"""`streams gateway --processes N`: N processes that listen on one port, started, watched and stopped as one.

Each has a socket of its own for the port (the kernel shares connections out), which the supervisor holds, so that a
process that is started again finds its connections waiting; and a second socket on loopback, by which the others ask
for its metrics. What the end of a process means is decided in `streams.worker.restarts`.
"""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import structlog

from streams.errors import FencedError, StreamsError, UsageError
from streams.limits import GATEWAY_GRACE_S
from streams.listening import listening, listening_together, url_of
from streams.text import counted
from streams.worker.lifeline import end_with
from streams.worker.restarts import EndAll, Restarts, ending

log = structlog.get_logger(__name__)

STOP_S_MAX: Final = GATEWAY_GRACE_S + 10.0
"""How long the processes may take to stop in order before they are killed."""
ORPHAN_S_MAX: Final = STOP_S_MAX
"""The same, of a process whose supervisor is gone."""
_LOOPBACK: Final = "127.0.0.1"
_FORM: Final = re.compile(r"(\d{1,4}):(\d{1,7}):(\d{1,7}):(\d{1,7}):([0-9,]{1,6000})")
_ERRORS: Final = {error.exit_status: error for error in (StreamsError, UsageError, FencedError)}


@dataclass(frozen=True, slots=True)
class Member:
    """Which process this is, the descriptors that it was given, and where the others are asked."""

    number: int
    public: int
    """A socket that listens on the gateway's port."""
    private: int
    """A socket that listens on loopback."""
    lifeline: int
    """A pipe's end to read: at its end when the supervisor is gone."""
    ports: tuple[int, ...]
    """The private ports of all, by number."""

    def __str__(self) -> str:
        """As the supervisor says it to the process."""
        ports = ",".join(map(str, self.ports))
        return f"{self.number}:{self.public}:{self.private}:{self.lifeline}:{ports}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what the supervisor said.

        Raises:
            UsageError: it is nothing that it says.

        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise UsageError("--member is said by `streams gateway --processes` alone")
        number, public, private, lifeline = map(int, found.groups()[:-1])
        return cls(number, public, private, lifeline, tuple(map(int, found[5].split(","))))

    def sockets(self) -> list[socket.socket]:
        """The public one, then the private one."""
        return [socket.socket(fileno=self.public), socket.socket(fileno=self.private)]

    def end_with_the_supervisor(self) -> None:
        """From now on the end of the supervisor stops this process, as SIGTERM does."""
        end_with(self.lifeline, stop_s_max=ORPHAN_S_MAX)


class Crew:
    """All processes of one `streams gateway --processes N`; `run` blocks until they are stopped."""

    def __init__(self, host: str, port: int, processes: int, options: Sequence[str]) -> None:
        """Take the port. `options`: of `streams gateway`, for each process.

        Raises:
            StreamsError: the port is taken.
            UsageError: the host is no address of this machine.

        """
        self._public = listening_together(host, port, processes)
        self._private = [listening(_LOOPBACK, [0]) for _ in range(processes)]
        self._lifeline, self._held = os.pipe()
        ports = tuple(one.getsockname()[1] for one in self._private)
        self._members = [
            Member(number, public.fileno(), private.fileno(), self._lifeline, ports)
            for number, (public, private) in enumerate(zip(self._public, self._private, strict=True))
        ]
        self._options = list(options)
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._signals = 0
        self._end: tuple[int, EndAll] | None = None

    @property
    def address(self) -> str:
        """Address that the gateway listens on."""
        return url_of(self._public[0])

    def run(self) -> None:
        """Take events until SIGTERM or Ctrl-C; every process has ended on return.

        Raises:
            StreamsError: a process failed for good, or had to be killed.
            UsageError: a process refused its options.

        """
        log.info("gateway", events=f"{self.address}/v1/events/", processes=len(self._members))
        try:
            killed = asyncio.run(self._run())
        finally:
            os.close(self._held)
            for one in (*self._public, *self._private):
                one.close()
        if self._end is not None:
            number, end = self._end
            raise _ERRORS[end.status](f"process {number}: {end.why}; the log says more. All have ended")
        if killed and self._signals < 2:
            raise StreamsError(
                f"{counted(killed, 'process', 'processes')} did not stop within {STOP_S_MAX:g} s and had to be killed: "
                "what was not answered was not accepted"
            )

    async def _run(self) -> int:
        """Run the processes; return how many had to be killed."""
        loop = asyncio.get_running_loop()
        for how in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(how) is not signal.SIG_IGN:
                loop.add_signal_handler(how, self._asked_to_stop)
        kept = [asyncio.create_task(self._keep(member)) for member in self._members]
        await self._stopping.wait()
        self._signal(signal.SIGTERM)
        _, late = await asyncio.wait(kept, timeout=STOP_S_MAX)
        if late:
            log.error("processes did not stop and are killed", processes=len(late))
            self._signal(signal.SIGKILL)
        await asyncio.gather(*kept)
        return len(late)

    async def _keep(self, member: Member) -> None:
        """Have it run until all are stopped, or its end ends all."""
        restarts = Restarts()
        try:
            while not self._stopping.is_set():
                started_s = time.monotonic()
                status = await self._run_once(member)
                if self._stopping.is_set():
                    return
                ran_s = time.monotonic() - started_s
                found = restarts.ended(status, was_ready=ran_s > 1.0, ran_s=ran_s)
                if isinstance(found, EndAll):
                    self._end = self._end or (member.number, found)
                    return
                log.error(
                    "a process has ended by itself and is started again",
                    process=member.number, how=ending(status), restart_in_s=found.pause_s,
                )  # fmt: skip
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), found.pause_s)
        finally:
            self._stopping.set()

    async def _run_once(self, member: Member) -> int:
        """Start it, and wait for its end: its exit status, or minus the number of the signal."""
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which then stops all in order.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "streams", "gateway", *self._options, "--member", str(member),
            stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
            pass_fds=(member.public, member.private, member.lifeline),
        )  # fmt: skip
        self._running[member.number] = process
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        try:
            return await process.wait()
        finally:
            del self._running[member.number]

    def _signal(self, how: signal.Signals) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(how)

    def _asked_to_stop(self) -> None:
        """Stop in order; asked again, at once."""
        self._signals += 1
        self._stopping.set()
        if self._signals > 1:
            self._signal(signal.SIGKILL)
