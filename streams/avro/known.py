"""The schemas that the engine knows by id or GUID: plans, and unusable ones. Both are bounded."""

from collections.abc import Iterable, Iterator, Mapping

from streams.avro.decoded import Known
from streams.avro.framing import SchemaKey
from streams.avro.resolve import Plan
from streams.batch.rejects import Reject
from streams.limits import SCHEMAS_MAX, UNKNOWN_SCHEMAS_MAX


class KnownSchemas(Mapping[SchemaKey, Plan | Reject]):
    """Plans and rejects by schema id or GUID; what is forgotten is asked for again when a record carries it.

    Nothing is forgotten before `trim`: what was learned is there for the records that wait for it.
    """

    def __init__(self, *, plans_max: int = SCHEMAS_MAX, rejects_max: int = UNKNOWN_SCHEMAS_MAX) -> None:
        self._plans: dict[SchemaKey, Plan] = {}
        self._rejects: dict[SchemaKey, Reject] = {}
        """Both are ordered by last use, the oldest first."""
        self._plans_max = plans_max
        self._rejects_max = rejects_max

    def __getitem__(self, key: SchemaKey) -> Plan | Reject:
        found = self._plans.get(key)
        return self._rejects[key] if found is None else found

    def __iter__(self) -> Iterator[SchemaKey]:
        yield from self._plans
        yield from self._rejects

    def __len__(self) -> int:
        return len(self._plans) + len(self._rejects)

    def learn(self, known: Known) -> None:
        """Add an answer of the registry."""
        for key, found in known.items():
            self.forget(key)
            if isinstance(found, Reject):
                self._rejects[key] = found
            else:
                self._plans[key] = found

    def forget(self, key: SchemaKey) -> None:
        """Forget this schema."""
        self._plans.pop(key, None)
        self._rejects.pop(key, None)

    def used(self, keys: Iterable[SchemaKey]) -> None:
        """Record that records named these schemas."""
        for key in keys:
            for kept in (self._plans, self._rejects):
                if key in kept:
                    kept[key] = kept.pop(key)  # type: ignore[assignment]  # of the same dictionary

    def trim(self) -> None:
        """Remove the least recently used entries, down to the bounds."""
        _trim(self._plans, self._plans_max)
        _trim(self._rejects, self._rejects_max)


def _trim(kept: dict[SchemaKey, Plan] | dict[SchemaKey, Reject], count_max: int) -> None:
    while len(kept) > count_max:
        del kept[next(iter(kept))]
