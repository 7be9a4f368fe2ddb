"""Vehicles without a connection: their records are kept back for a while, then sent in one go, as after a tunnel."""

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from loadtest.fleet import TrafficBatch

SECONDS_MAX: Final = 300.0
KEPT_MAX: Final = 1_000_000
"""Records kept back at most; with more, all of them are sent early."""
_READ_BYTES: Final = 4_096
_LINE_BYTES_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class Hold:
    """Which vehicles have no connection, and for how long."""

    endings: tuple[bytes, ...]
    """Keys that end with one of these."""
    newest_first: tuple[bytes, ...]
    """Those endings whose keys' records are sent in reverse order, the newest first."""
    seconds: float

    @classmethod
    def parse(cls, line: str) -> "Hold":
        """Read a command: `{"hold": {"endings": ["7"], "newest_first": ["07"], "seconds": 20}}`.

        Raises:
            ValueError: it is none; the message says what is wrong.

        """
        told: Any = json.loads(line)
        what = told.get("hold") if isinstance(told, dict) else None
        if not isinstance(what, dict):
            raise ValueError('want {"hold": {"endings": [...], "newest_first": [...], "seconds": N}}')  # noqa: TRY004
        endings, seconds = _endings(what.get("endings")), what.get("seconds")
        if not endings or "" in what["endings"]:
            raise ValueError("endings: a list of texts that are not empty")
        if not isinstance(seconds, int | float) or not 0 < seconds <= SECONDS_MAX:
            raise ValueError(f"seconds: more than 0, at most {SECONDS_MAX:.0f}")
        return cls(endings, _endings(what.get("newest_first", [])), float(seconds))


class Holding:
    """Takes records of some keys out of the traffic, and gives them back later.

    `begin` may be called from another thread than the rest. Records come back with the time at which they are sent as
    their timestamp; keys, values and the order within a key stay, but for keys that send the newest first.
    """

    def __init__(self, say: Callable[[dict[str, Any]], None]) -> None:
        """`say` is told when a hold begins and what has come back when it ends."""
        self._say = say
        self._wanted: Hold | None = None
        self._hold: Hold | None = None
        self._until_ms = 0
        self._kept: list[tuple[bytes, bytes, int]] = []
        self.was_used = False
        """Whether there was a hold: what is late then depends on when it ended."""

    def begin(self, hold: Hold) -> None:
        """Hold keys back from the next batch on; one that is under way ends first."""
        self._wanted = hold

    def pass_on(self, batch: TrafficBatch, now_ms: int) -> TrafficBatch:
        """What is to be sent now: of the batch, and of what was kept back and is due."""
        back = self._release(now_ms) if self._is_over(now_ms) else None
        if self._wanted is not None and self._hold is None:
            self._hold, self._wanted = self._wanted, None
            self._until_ms = now_ms + round(self._hold.seconds * 1_000)
            self.was_used = True
            self._say({"hold": "began"})
        if self._hold is not None:
            batch = self._without(self._hold, batch)
        return batch if back is None else _joined(back, batch)

    def rest(self, now_ms: int) -> TrafficBatch | None:
        """What is still kept back, at the end of the traffic."""
        return None if self._hold is None else self._release(now_ms)

    def _is_over(self, now_ms: int) -> bool:
        if self._hold is None:
            return False
        return now_ms >= self._until_ms or len(self._kept) >= KEPT_MAX or self._wanted is not None

    def _without(self, hold: Hold, batch: TrafficBatch) -> TrafficBatch:
        stay = []
        for row, key in enumerate(batch.keys):
            if key is not None and key.endswith(hold.endings):
                self._kept.append((key, batch.values[row], int(batch.kinds[row])))
            else:
                stay.append(row)
        return TrafficBatch(
            [batch.keys[row] for row in stay],
            [batch.values[row] for row in stay],
            [batch.timestamps_ms[row] for row in stay],
            batch.kinds[stay],
        )

    def _release(self, now_ms: int) -> TrafficBatch:
        hold, kept = self._hold, self._kept
        self._hold, self._kept = None, []
        endings = () if hold is None else hold.newest_first
        reverse = [one for one in reversed(kept) if endings and one[0].endswith(endings)]
        rows = [one for one in kept if not endings or not one[0].endswith(endings)] + reverse
        self._say({"hold": "ended", "records": len(rows), "keys": len({key for key, _, _ in rows})})
        return TrafficBatch(
            [key for key, _, _ in rows],
            [value for _, value, _ in rows],
            [now_ms] * len(rows),
            np.array([kind for _, _, kind in rows], dtype=np.int8),
        )


def read_commands(begin: Callable[[Hold], None]) -> None:
    """Give every command on standard input to `begin`, in a thread of its own; what is no command is said and left.

    The descriptor is read directly: a thread that waits inside of `sys.stdin` would hold its lock at exit.
    """
    threading.Thread(target=_read, args=(begin,), name="commands", daemon=True).start()


def _read(begin: Callable[[Hold], None]) -> None:
    read = b""
    while part := os.read(0, _READ_BYTES):
        *lines, read = (read + part)[-_LINE_BYTES_MAX:].split(b"\n")
        for line in filter(None, lines):
            try:
                begin(Hold.parse(line.decode()))
            except ValueError as error:
                print(f"generator: {line[:200]!r} is no command: {error}", file=sys.stderr, flush=True)


def _endings(found: object) -> tuple[bytes, ...]:
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError("endings and newest_first: lists of texts")
    return tuple(one.encode() for one in found)


def _joined(first: TrafficBatch, second: TrafficBatch) -> TrafficBatch:
    return TrafficBatch(
        first.keys + second.keys,
        first.values + second.values,
        first.timestamps_ms + second.timestamps_ms,
        np.concatenate([first.kinds, second.kinds]),
    )
