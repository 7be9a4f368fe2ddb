"""Device breaker: keeps out a device that sends only rejects, and lets it in again after a clean probe.

Like a circuit breaker, but by the log's own clock (the records' timestamps) and record by record, so that the result
depends on the log alone (I8). Closed: the latest rejects of a key are remembered. More than `rejects_max` within
`WINDOW_MS`: open. Open: records are kept out without being decoded, until one is `cooldown_ms` away from the reject
that opened it; that one is the probe: when it is clean the breaker closes, otherwise it is open for another cool-down
from there.
"""

import struct
from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import compress, islice
from typing import Final

import numpy as np

from streams.batch.columns import Bools
from streams.limits import KEY_BYTES_MAX

WINDOW_MS: Final = 60_000
KEYS_MAX: Final = 10_000
"""Keys remembered per partition; beyond it the one whose last reject is the longest ago is forgotten."""
TIMES_MAX: Final = 500_000
"""Timestamps of rejects remembered per partition (4 MB); beyond it the same key is forgotten.

A key has at most `rejects_max` + 1 of them, and none once it is kept out.
"""
_BYTES_PER_KEY: Final = 400
"""Rough memory of a key beyond its bytes: entries of dictionaries and sets, the breaker."""
_HEADER: Final = struct.Struct("<qq")  # when it opened, number of the latest change
_CLOSED: Final = int(np.iinfo(np.int64).min)


class _Breaker:
    __slots__ = ("opened_at", "rejects", "touched")

    def __init__(self, opened_at: int, touched: int, rejects: "array[int]") -> None:
        self.opened_at = opened_at
        self.touched = touched
        self.rejects = rejects
        """Timestamps of the latest rejects, in log order."""

    def pack(self) -> bytes:
        return _HEADER.pack(self.opened_at, self.touched) + np.array(self.rejects, dtype="<i8").tobytes()

    @staticmethod
    def unpack(data: bytes) -> "_Breaker":
        opened_at, touched = _HEADER.unpack_from(data)
        return _Breaker(opened_at, touched, array("q", np.frombuffer(data, dtype="<i8", offset=_HEADER.size)))


class DeviceBreakers:
    """Breakers of the keys of one partition. `rejects_max` 0 turns them off."""

    def __init__(self, *, rejects_max: int, cooldown_ms: int) -> None:
        self._rejects_max = rejects_max
        self._cooldown_ms = cooldown_ms
        self._breakers: dict[bytes, _Breaker] = {}
        """The least recently changed first."""
        self._changed: set[bytes] = set()
        self._changes = 0
        self._open: set[bytes] = set()
        self._times = 0
        """Number of timestamps remembered for all keys."""
        self._key_bytes = 0

    @property
    def is_on(self) -> bool:
        """Whether devices are kept out at all."""
        return self._rejects_max > 0

    @property
    def open_keys(self) -> frozenset[bytes]:
        """Keys that are kept out."""
        return frozenset(self._open)

    @property
    def bytes_used(self) -> int:
        """Approximate memory in bytes."""
        return self._key_bytes + _BYTES_PER_KEY * len(self._breakers) + 8 * self._times

    @property
    def keys(self) -> Iterable[bytes]:
        """Keys that are remembered, the one whose last change is the longest ago first."""
        return self._breakers.keys()

    def may_be_forgotten(self, keys: Collection[bytes], records: int) -> frozenset[bytes]:
        """Keys that may be pushed out while `records` records of `keys` (each named once) are noted."""
        new = sum(key not in self._breakers for key in keys)
        too_many = len(self._breakers) + new - KEYS_MAX
        if self._times + records > TIMES_MAX:
            return frozenset(self._breakers)
        # The least recently changed go first; those of `keys` may be moved away from in front of them.
        return frozenset(islice(self._breakers, too_many + len(keys) - new)) if too_many > 0 else frozenset()

    def keeps_out(self, key: bytes, timestamp_ms: int) -> bool:
        """Whether a record is to be rejected unseen."""
        return key in self._open and abs(timestamp_ms - self._breakers[key].opened_at) < self._cooldown_ms

    def rejected(self, key: bytes, timestamp_ms: int) -> None:
        """Record that a record was rejected on its own.

        A key that is too long for any valid record opens no breaker.
        """
        if len(key) > KEY_BYTES_MAX:
            return
        breaker = self._breakers.pop(key, None)
        if breaker is None:
            breaker = _Breaker(_CLOSED, 0, array("q"))
            self._key_bytes += len(key)
        self._breakers[key] = breaker
        self._times -= len(breaker.rejects)
        breaker.rejects.append(timestamp_ms)
        del breaker.rejects[: -(self._rejects_max + 1)]
        within = sum(abs(timestamp_ms - at) < WINDOW_MS for at in breaker.rejects)
        if key in self._open or within > self._rejects_max:
            breaker.opened_at = timestamp_ms
            breaker.rejects = array("q")
            self._open.add(key)
        self._times += len(breaker.rejects)
        self._touch(key, breaker)
        while len(self._breakers) > KEYS_MAX or self._times > TIMES_MAX:
            self._forget(next(iter(self._breakers)))

    def accepted(self, key: bytes) -> None:
        """Record that a record of `key` was clean: a probe closes the breaker."""
        if key in self._open:
            self._forget(key)

    # --- state ------------------------------------------------------------------------------------------------------

    def take_changed(self) -> list[tuple[bytes, bytes]]:
        """Keys and packed breakers changed since the last call; no bytes where one is gone."""
        changed = [
            (key, breaker.pack() if (breaker := self._breakers.get(key)) is not None else b"")
            for key in sorted(self._changed)
        ]
        self._changed.clear()
        return changed

    def journal_again(self, keys: Iterable[bytes]) -> None:
        """Make `take_changed` return the breakers of `keys`, although they have not changed."""
        self._changed.update(keys)

    @property
    def is_settled(self) -> bool:
        """Whether nothing has changed since `take_changed`."""
        return not self._changed

    def drop_moved(self, kept: Callable[[Sequence[bytes]], Bools]) -> None:
        """Forget the breakers of keys that are not kept, as if they had never been; only while nothing has changed."""
        keys = list(self._breakers)
        for key in compress(keys, ~kept(keys)):
            self._forget(key)
        self._changed.clear()

    def restore(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin with what `take_changed` has given, the last of each key.

        Raises:
            ValueError: the bytes are not a breaker.

        """
        try:
            found = sorted(((key, _Breaker.unpack(row)) for key, row in rows), key=lambda pair: pair[1].touched)
        except struct.error as error:
            raise ValueError(f"not a breaker: {error}") from None
        self._breakers = dict(found)
        self._open = {key for key, breaker in found if breaker.opened_at != _CLOSED}
        self._changes = max((breaker.touched for _, breaker in found), default=0)
        self._times = sum(len(breaker.rejects) for _, breaker in found)
        self._key_bytes = sum(len(key) for key, _ in found)

    def _touch(self, key: bytes, breaker: _Breaker) -> None:
        self._changes += 1
        breaker.touched = self._changes
        self._changed.add(key)

    def _forget(self, key: bytes) -> None:
        self._times -= len(self._breakers.pop(key).rejects)
        self._key_bytes -= len(key)
        self._open.discard(key)
        self._changed.add(key)
