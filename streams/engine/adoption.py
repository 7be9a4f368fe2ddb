"""A new partition's adoption: it commits its parent's state of its keys, in bounded cycles, before it consumes.

The state is in the store already (`engine.restore_adoption`). Here it is written to the partition's own journal and
tables, so that every later restore needs these only. Pieces are sets of ids and rows of keys: if a process dies half
way, the next attempt writes the pieces again, with the same result.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from streams.batch.columns import Headers
from streams.batch.moved import MOVED_HEADER
from streams.engine.effects import Tombstones
from streams.engine.encode import ChangelogPart
from streams.limits import JOURNAL_RECORD_BYTES_MAX
from streams.state.identity import Identity

PORTION_BYTES_MAX: Final = 8 * JOURNAL_RECORD_BYTES_MAX
"""Bound on the journal's sections in one transaction."""
TOMBSTONES_MAX: Final = 5_000
"""Bound on rows in one transaction."""


@dataclass(frozen=True, slots=True)
class Portion:
    """What one cycle of an adoption writes."""

    identity: Identity
    """The identity of the layout after the growth in the last cycle, which completes the adoption; the earlier one
    before.
    """
    sections: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    rows: ChangelogPart | None = None


class Adoption:
    """The portions of one adoption. One thread at a time."""

    def __init__(
        self,
        sections: Mapping[str, Sequence[bytes]],
        rows: Iterator[ChangelogPart],
        *,
        event_time_max: int,
        before: Identity,
        after: Identity,
        portion_bytes_max: int | None = None,
    ) -> None:
        """`event_time_max`: newest time in `sections`; `before` and `after`: identities in both layouts."""
        self.event_time_max = event_time_max
        self.after = after
        self._before = before
        self._rows: Iterator[ChangelogPart] | None = rows
        self._groups = list(_groups(sections, portion_bytes_max or PORTION_BYTES_MAX))[::-1]
        self.is_closed = False
        """Whether the last portion was taken."""

    def next(self) -> Portion:
        """The next portion: rows of tables first, then the journal; the last one has the identity `after`."""
        if self._rows is not None:
            part = next(self._rows, None)
            if part is not None:
                return Portion(self._before, rows=part)
            self._rows = None
        sections = self._groups.pop() if self._groups else {}
        self.is_closed = not self._groups
        return Portion(self.after if self.is_closed else self._before, sections)

    def drop(self) -> None:
        """Stop reading the store."""
        self._rows = None


class Clearing:
    """Deletes the rows that keys of a partition still have in its parent's tables, some with each cycle.

    It runs only after the adoption is committed. It may be repeated at any time: the parent no longer writes these
    rows.
    """

    def __init__(self, parent: int, epoch: int, keys: Mapping[str, Iterator[bytes]], *, header: bytes) -> None:
        """`keys` has the keys of each table; `header` says where their rows are now."""
        self.epoch = epoch
        self._parent = parent
        self._keys = dict(keys)
        self._headers: Headers = [(MOVED_HEADER, header)]

    def next(self) -> list[Tombstones]:
        """The deletions of the next cycle; empty when nothing is left."""
        for topic, keys in list(self._keys.items()):
            if some := list(islice(keys, TOMBSTONES_MAX)):
                return [Tombstones(topic, self._parent, some, self._headers)]
            del self._keys[topic]
        return []

    @property
    def is_done(self) -> bool:
        """Whether `next` has found nothing."""
        return not self._keys

    def drop(self) -> None:
        """Stop reading the store."""
        self._keys.clear()


def _groups(sections: Mapping[str, Sequence[bytes]], bytes_max: int) -> Iterator[Mapping[str, Sequence[bytes]]]:
    """All pieces in order, grouped up to `bytes_max`; a larger piece stands alone."""
    group: dict[str, list[bytes]] = {}
    size = 0
    for name, pieces in sections.items():
        for piece in pieces:
            if group and size + len(piece) > bytes_max:
                yield group
                group, size = {}, 0
            group.setdefault(name, []).append(piece)
            size += len(piece)
    if group:
        yield group
