"""The records of a flow's versions topic: one for each version that was made, and one for which version is current.

Compacted by key. A version's record is its catalog entry: where its outputs come from, over which range. The record of
the current version is what workers go by: they run that version alone, and none while a switch goes on.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, TypeVar

CURRENT_KEY: Final = b"current"
_VERSION_KEY: Final = b"version/"


class VersionLogError(ValueError):
    """The versions topic holds something that no version of this program has written."""


class From(StrEnum):
    """What a version's history is read from."""

    TOPIC = "topic"
    FILES = "files"
    DELTA = "delta"


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """A version that `streams backfill` makes or has made."""

    version: str
    origin: From = From.TOPIC
    inputs: tuple[str, ...] = ()
    """Files, or the Delta table: what `origin` means."""
    pinned: int | None = None
    """Version of the Delta table that is read."""
    from_ms: int | None = None
    to_ms: int | None = None
    is_closed: bool = False
    """Whether all was released at the end: nothing goes on from there, and it is not promoted."""
    starts: Mapping[int, int] = field(default_factory=dict)
    """First offset of each lane (`streams.batch.lanes`)."""
    ends: Mapping[int, int] = field(default_factory=dict)
    """By lane: the offset after the last one. Empty: not known yet, since files are still brought into a topic."""
    begun_ms: int = 0
    finished_ms: int | None = None
    """When the version was complete; None: it is not."""
    bad_rows: int = 0
    """Rows of files that are no events."""
    code: str = ""
    """Digest of the app that it was made with (`streams.flow.code`)."""

    @property
    def key(self) -> bytes:
        """Key of the version's record."""
        return _VERSION_KEY + self.version.encode()

    @property
    def is_finished(self) -> bool:
        """Whether its range was processed."""
        return self.finished_ms is not None

    def begun_like(self, other: "VersionRecord") -> bool:
        """Whether the same command has begun both."""
        mine = (self.origin, self.inputs, self.from_ms, self.to_ms, self.is_closed)
        return mine == (other.origin, other.inputs, other.from_ms, other.to_ms, other.is_closed)

    @property
    def value(self) -> bytes:
        """The record's value as JSON."""
        return _packed(asdict(self))


@dataclass(frozen=True, slots=True)
class CurrentRecord:
    """Which version workers run."""

    version: str = ""
    """Version that workers run; empty: the declared one."""
    going_to: str | None = None
    """The version that is to take over: workers run none meanwhile. None: no switch goes on."""
    before: str | None = None
    """The version that this one has taken over from; it is kept."""
    positions: Mapping[int, int] = field(default_factory=dict)
    """By lane: where the one before stopped and this one has gone on."""
    retired: tuple[str, ...] = ()
    """Digests of code that ran the version before: what it computes is not what this version holds."""
    switched_ms: int = 0

    @property
    def key(self) -> bytes:
        """Key of the record, the same for all versions."""
        return CURRENT_KEY

    @property
    def value(self) -> bytes:
        """The record's value as JSON."""
        return _packed(asdict(self))

    def switching(self, to: str) -> "CurrentRecord":
        """While the switch goes on."""
        return replace(self, going_to=to)

    def cancelled(self) -> "CurrentRecord":
        """The switch does not happen."""
        return replace(self, going_to=None)

    def switched(self, positions: Mapping[int, int], retired: Iterable[str], at_ms: int) -> "CurrentRecord":
        """Once the version that it goes to stands where this one stopped."""
        if self.going_to is None:
            raise ValueError("no switch goes on")
        return CurrentRecord(self.going_to, None, self.version, dict(positions), tuple(sorted(retired)), at_ms)


Record = TypeVar("Record", VersionRecord, CurrentRecord)


@dataclass(frozen=True, slots=True)
class Versions:
    """What the versions topic of a flow says."""

    current: CurrentRecord = field(default_factory=CurrentRecord)
    made: Mapping[str, VersionRecord] = field(default_factory=dict)
    """Records of the versions that were made, by version."""


def read_versions(log: Iterable[tuple[bytes | None, bytes | None, int]]) -> Versions:
    """What a versions topic says, of its records in order: key, value, timestamp in ms.

    Raises:
        VersionLogError: a record is something else.

    """
    current = CurrentRecord()
    made: dict[str, VersionRecord] = {}
    for key, value, _ in log:
        if key == CURRENT_KEY and value is not None:
            current = _unpacked(CurrentRecord, value)
        elif key is not None and key.startswith(_VERSION_KEY):
            if value is None:
                made.pop(key.removeprefix(_VERSION_KEY).decode(), None)
            else:
                record = _unpacked(VersionRecord, value)
                made[record.version] = record
        else:
            raise VersionLogError(f"a record of the versions topic has the key {key!r}")
    return Versions(current, made)


def _packed(said: dict[str, Any]) -> bytes:
    return json.dumps(said).encode()


def _unpacked(kind: type[Record], value: bytes) -> Record:
    """Fields that a later version may add are not looked at."""
    try:
        said = json.loads(value)
        said["version"]  # of which all of it is
        named = {name: _typed(name, said[name]) for name in kind.__dataclass_fields__ if name in said}
        return kind(**named)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VersionLogError(f"not a record of versions: {value[:200]!r} ({error})") from None


def _typed(name: str, value: Any) -> Any:
    if name in {"starts", "ends", "positions"}:
        return {int(lane): int(offset) for lane, offset in value.items()}
    if name in {"inputs", "retired"}:
        return tuple(map(str, value))
    return From(value) if name == "origin" else value
