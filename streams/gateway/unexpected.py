"""Fields of records that the schema of a source does not have: counted and logged, never in the way."""

import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from streams.gateway.records import Rejection, Row
from streams.limits import GATEWAY_FIELDS_COUNTED_MAX

log = structlog.get_logger(__name__)

OTHERS: Final = "(others)"
_LOG_EVERY_S: Final = 60.0
_NAME_CHARACTERS_MAX: Final = 100
_NAMED_MAX: Final = 20


class UnexpectedFields:
    """Counts fields in records of one source that are not among its known ones, and logs them."""

    def __init__(
        self,
        source: str,
        known: frozenset[str],
        count: Callable[[str, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`count` is told of a field and a number of records."""
        self._source, self._known, self._count, self._clock = source, known, count, clock
        self._counted: set[str] = set()
        self._unsaid: dict[str, int] = {}
        self._said_s = -_LOG_EVERY_S

    def look(self, rows: Iterable[Row | Rejection]) -> None:
        """Count unexpected fields in some records."""
        known = self._known
        found: dict[str, int] = {}
        for row in rows:
            if isinstance(row, dict) and not row.keys() <= known:
                for name in row.keys() - known:
                    found[name] = found.get(name, 0) + 1
        if found:
            self._note(found)

    def _note(self, found: dict[str, int]) -> None:
        for field, records in found.items():
            name = field[:_NAME_CHARACTERS_MAX].encode(errors="backslashreplace").decode()
            if name not in self._counted:
                if len(self._counted) >= GATEWAY_FIELDS_COUNTED_MAX:
                    name = OTHERS
                self._counted.add(name)
            self._count(name, records)
            self._unsaid[name] = self._unsaid.get(name, 0) + records
        if self._clock() - self._said_s >= _LOG_EVERY_S:
            self._said_s = self._clock()
            fields = dict(sorted(self._unsaid.items(), key=lambda pair: -pair[1])[:_NAMED_MAX])
            log.warning("fields that the schema does not have were left out", source=self._source, records=fields)
            self._unsaid.clear()
