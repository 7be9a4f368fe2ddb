"""Reads rounds of offsets in a child process: the client that reads them may abort its process (ADR 40)."""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import IO, Final, Self, cast

import structlog

from streams.errors import StreamsError
from streams.kafka.offsets_child import FRAME, ROUND
from streams.kafka.round import ROUND_BYTES_MAX, Round
from streams.settings import Settings, without_connections

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT_S: Final = 30.0
"""A round that takes longer than its own time limits: the process hangs, and is replaced."""
_STOP_TIMEOUT_S: Final = 5.0
_CHUNK: Final = 1 << 20


class RoundFailed(StreamsError):
    """There is no round this time; the next one may succeed."""


class OffsetProbe:
    """Reads rounds of offsets. One thread; `close` when done."""

    def __init__(self, settings: Settings) -> None:
        self._environment = {**without_connections(os.environ), **settings.connection_environment()}
        self._process: subprocess.Popen[bytes] | None = None
        self.deaths = 0
        """Number of processes that ended by themselves."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, only: Iterable[str] | None = None, *, newest: bool = False) -> Round:
        """Offsets of all partitions and groups, or of `only` these groups; `newest`: see `OffsetRounds.take`.

        Raises:
            RoundFailed: the broker did not answer, or the process died; it is started again with the next call.

        """
        wanted = {"groups": None if only is None else sorted(only), "newest": newest}
        process = self._running()
        pipe_in, pipe_out = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
        try:
            pipe_in.write(json.dumps(wanted).encode() + b"\n")
            pipe_in.flush()
            kind, length = FRAME.unpack(self._read(pipe_out, FRAME.size, deadline_s))
            answer = self._read(pipe_out, min(length, ROUND_BYTES_MAX), deadline_s)
        except (OSError, EOFError):
            status = self._end(process)
            self.deaths += 1
            log.warning("the process that reads offsets has died; starting another", status=status)
            raise RoundFailed(f"the process that reads offsets has died (status {status})") from None
        except TimeoutError:
            self._end(process)
            self.deaths += 1
            raise RoundFailed(f"no offsets within {ANSWER_TIMEOUT_S:g} s") from None
        if kind != ROUND:
            self._end(process)
            raise RoundFailed(answer.decode())
        return Round.from_bytes(answer)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._end(self._process)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "streams.kafka.offsets_child"],  # -P: no module of the working directory
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                stderr=subprocess.DEVNULL,  # an abort of the client is told by its status
            )
        return self._process

    def _end(self, process: subprocess.Popen[bytes]) -> int | None:
        self._process = None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue  # the rest of the request has no reader
        try:
            return process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    @staticmethod
    def _read(pipe: IO[bytes], count: int, deadline_s: float) -> bytes:
        """Exactly `count` bytes.

        Raises:
            EOFError: it ends before.
            TimeoutError: it takes too long.

        """
        found = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while len(found) < count:
                if not selector.select(deadline_s - time.monotonic()):
                    raise TimeoutError
                part = os.read(pipe.fileno(), min(_CHUNK, count - len(found)))
                if not part:
                    raise EOFError
                found += part
        return bytes(found)
