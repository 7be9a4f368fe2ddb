"""What the engine knows of schema ids: decoding plans, and ids that the registry does not have. Both are bounded."""

from collections.abc import Iterable, Iterator, Mapping

from streams.limits import SCHEMAS_MAX, UNKNOWN_SCHEMAS_MAX
from streams.operators.decode import Known
from streams.operators.rejects import Reject
from streams.operators.resolve import Plan


class KnownSchemas(Mapping[int, Plan | Reject]):
    """Plans and rejects by schema id; what is forgotten is asked for again when a record carries it.

    Nothing is forgotten before `trim`: what was learned is there for the records that wait for it.
    """

    def __init__(self, *, plans_max: int = SCHEMAS_MAX, rejects_max: int = UNKNOWN_SCHEMAS_MAX) -> None:
        self._plans: dict[int, Plan] = {}
        self._rejects: dict[int, Reject] = {}
        """Both: the least recently used first."""
        self._plans_max = plans_max
        self._rejects_max = rejects_max

    def __getitem__(self, schema_id: int) -> Plan | Reject:
        found = self._plans.get(schema_id)
        return self._rejects[schema_id] if found is None else found

    def __iter__(self) -> Iterator[int]:
        yield from self._plans
        yield from self._rejects

    def __len__(self) -> int:
        return len(self._plans) + len(self._rejects)

    def learn(self, known: Known) -> None:
        """Take note of what the registry has answered."""
        for schema_id, found in known.items():
            self.forget(schema_id)
            if isinstance(found, Reject):
                self._rejects[schema_id] = found
            else:
                self._plans[schema_id] = found

    def forget(self, schema_id: int) -> None:
        """Know nothing of this id any more."""
        self._plans.pop(schema_id, None)
        self._rejects.pop(schema_id, None)

    def used(self, schema_ids: Iterable[int]) -> None:
        """Note that records carried these ids."""
        for schema_id in schema_ids:
            for kept in (self._plans, self._rejects):
                if schema_id in kept:
                    kept[schema_id] = kept.pop(schema_id)  # type: ignore[assignment]  # of the same dictionary

    def trim(self) -> None:
        """Forget what was not used for the longest, down to the bounds."""
        _trim(self._plans, self._plans_max)
        _trim(self._rejects, self._rejects_max)


def _trim(kept: dict[int, Plan] | dict[int, Reject], count_max: int) -> None:
    while len(kept) > count_max:
        del kept[next(iter(kept))]
