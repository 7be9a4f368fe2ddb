"""The records of a flow's growth topic: one for each growth, compacted by its epoch; the newest says how far it is."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from streams.growth.layout import FIRST_EPOCH, Growth, Layout
from streams.growth.layouts import Layouts
from streams.growth.stages import Phase


class GrowthLogError(ValueError):
    """The growth topic holds something that no version of this program has written, or a gap."""


@dataclass(frozen=True, slots=True)
class GrowthRecord:
    """A growth and its phase. Without a value (the growth was given up) there is none."""

    growth: Growth
    phase: Phase
    at_ms: int = 0
    """When the record was written, by its timestamp."""

    @property
    def key(self) -> bytes:
        """Key of the record: the epoch that the growth leads to."""
        return key_of(self.growth)

    @property
    def value(self) -> bytes:
        """Value of the record, as JSON."""
        growth = self.growth
        said = {
            "epoch": growth.epoch,
            "before": growth.before.partitions,
            "after": growth.after.partitions,
            "phase": self.phase.value,
        }
        return json.dumps(said).encode()


def key_of(growth: Growth) -> bytes:
    """Key of the record of a growth."""
    return str(growth.epoch).encode()


def read_record(value: bytes, at_ms: int = 0) -> GrowthRecord:
    """The record with this value. Fields that a later version may add are not looked at.

    Raises:
        GrowthLogError: it is something else.

    """
    try:
        said: Mapping[str, Any] = json.loads(value)
        epoch = int(said["epoch"])
        growth = Growth(Layout(epoch - 1, int(said["before"])), Layout(epoch, int(said["after"])))
        return GrowthRecord(growth, Phase(said["phase"]), at_ms)
    except (KeyError, TypeError, ValueError) as error:
        raise GrowthLogError(f"not the record of a growth: {value[:200]!r} ({error})") from None


def newest_records(log: Iterable[tuple[bytes | None, bytes | None, int]]) -> list[GrowthRecord]:
    """The growths that a growth topic tells of, by epoch, of its records in order: key, value, timestamp in ms.

    Raises:
        GrowthLogError: a record is something else, or the growths do not follow one another.

    """
    found: dict[bytes, GrowthRecord] = {}
    for key, value, at_ms in log:
        if key is None:
            raise GrowthLogError("a record of the growth topic has no key")
        if value is None:
            found.pop(key, None)
            continue
        record = read_record(value, at_ms)
        if record.key != key:
            raise GrowthLogError(f"the record of a growth has the key {key!r} and the epoch {record.growth.epoch}")
        found[key] = record
    records = sorted(found.values(), key=lambda one: one.growth.epoch)
    expected = FIRST_EPOCH + 1
    before: Layout | None = None
    for record in records:
        if record.growth.epoch != expected or (before is not None and record.growth.before != before):
            raise GrowthLogError(f"the growth to epoch {record.growth.epoch} does not follow on one that is known")
        expected, before = expected + 1, record.growth.after
    return records


def layouts_of(records: Iterable[GrowthRecord], partitions: int) -> Layouts:
    """The layouts of a flow by the records of its growth topic, as `newest_records` has them.

    `partitions`: those of a flow that was never grown.
    """
    found = list(records)
    layouts = Layouts.first(found[0].growth.before.partitions if found else partitions)
    for record in found:
        layouts = layouts.grown(record.growth.after.partitions, record.phase)
    return layouts
