"""`--transform module:function`: runs a user's repair of letters, and checks each result before it is sent.

The result must be valid for the flow: it is decoded with the registry's schemas and checked by the same code as the
source's records. All letters are repaired and checked once before anything is sent.
"""

import importlib
import os
import sys
import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from streams.avro.framing import SchemaKey
from streams.avro.resolve import Plan
from streams.batch.columns import Headers
from streams.batch.records import Records
from streams.batch.rejects import Reject
from streams.deadletters.letter.letter import Letter, NotARepair, Repair, Repairing, repaired
from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.flow.decoding import decoder_of
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.schemas.personal import personal_of
from streams.schemas.plans import plan_or_reject
from streams.settings import Settings

COMPLAINTS_SHOWN: Final = 5


def load_repair(name: str) -> Repairing:
    """The function that `module:function` names; modules of the current directory are found, too.

    Raises:
        UsageError: there is no such module or function, or importing it fails.

    """
    module_name, colon, function_name = name.partition(":")
    if not (module_name and colon and function_name.isidentifier()):
        raise UsageError(f"--transform {name}: must be MODULE:FUNCTION")
    here = os.getcwd()  # noqa: PTH109 - an entry of sys.path is a string
    if here not in sys.path:
        sys.path.append(here)  # last: so that its files do not hide modules of Python or of this package
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # noqa: BLE001 - a user's module may raise anything while it is imported
        raise UsageError(f"--transform {name}: importing {module_name}: {type(error).__name__}: {error}") from None
    found = getattr(module, function_name, None)
    if not callable(found):
        raise UsageError(f"--transform {name}: {module_name} has no function {function_name}")
    repair: Repairing = found
    return repair


class Judge:
    """Checks records as the flow would now, as far as decoding and validation go."""

    def __init__(self, settings: Settings, flow: Pipeline) -> None:
        self._decoder = decoder_of(flow, settings)
        catalog = Catalog.load()
        self._reader = catalog.latest(flow.subject).text
        self.is_personal = bool(personal_of(catalog, flow.subject))
        """Whether records of the flow hold personal data."""
        self._registry = Registry(settings)
        self._known: dict[SchemaKey, Plan | Reject] = {}

    def rejects(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Headers | None],
    ) -> dict[int, Reject]:
        """Rejects by row, for records that arrive now.

        Raises:
            RegistryUnavailable: the registry does not answer, so nothing can be said.

        """
        count = len(values)
        records = Records(
            partition=np.zeros(count, dtype=np.int64),
            offset=np.arange(count),
            timestamp_ms=np.full(count, time.time_ns() // 1_000_000),
            key=list(keys),
            value=list(values),
            headers=list(headers) if any(headers) else None,
        )
        decoded = self._decoder.decode(records, self._known)
        while decoded.unresolved:
            for key in decoded.unresolved:
                self._known[key] = plan_or_reject(self._registry, key, self._reader)
            decoded = self._decoder.decode(records, self._known)
        return {reject.row: reject for reject in decoded.rejects}


class Transform:
    """A user's repair, checked against the flow's rules."""

    def __init__(self, name: str, repairing: Repairing, judge: Judge) -> None:
        self.name = name
        self._repairing = repairing
        self._judge = judge

    def apply(self, letters: Sequence[Letter]) -> list[Repair | None]:
        """The repaired letters; None where the user leaves one out.

        Raises:
            StreamsError: it raised, returned rubbish, or a repaired letter would be rejected again; the message
                names the first such letters.

        """
        repairs: list[Repair | None] = []
        complaints: list[str] = []
        for letter in letters:
            try:
                repairs.append(repaired(letter, self._repairing))
            except NotARepair as error:
                complaints.append(f"{letter.id}: {error.what if self._judge.is_personal else error}")
                repairs.append(None)
        rows = [row for row, repair in enumerate(repairs) if repair is not None]
        made = [repair for repair in repairs if repair is not None]
        rejects = self._judge.rejects(
            [repair.key for repair in made],
            [repair.value for repair in made],
            [letters[row].headers or None for row in rows],
        )
        complaints += [
            f"{letters[rows[place]].id}: it would be rejected again ({reject.reason.value}): {reject.message}"
            for place, reject in rejects.items()
        ]
        if complaints:
            more = f" (and {len(complaints) - COMPLAINTS_SHOWN} more)" if len(complaints) > COMPLAINTS_SHOWN else ""
            raise StreamsError(
                f"--transform {self.name} cannot be used: {'; '.join(complaints[:COMPLAINTS_SHOWN])}{more}"
            )
        return repairs
