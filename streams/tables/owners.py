"""Which worker has which partitions of a flow, and where its web server answers: by what Kafka knows of the group.

The group's description says which member was given a partition. Where a member answers is in its client id,
`streams-gps-4f1c@10.0.0.5:6066`, and in the metadata of the offsets that it has committed: the broker keeps the id
with which a static member has first joined, also when it has come back at another address.
"""

import asyncio
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog

from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.group_positions import GroupPositions
from streams.kafka.offsets_process import OffsetProbe
from streams.limits import QUERY_OWNERS_INTERVAL_MS
from streams.settings import Settings
from streams.sinks.base import Committed
from streams.sources.kafka.membership import member_of

log = structlog.get_logger(__name__)

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_KEPT_S: Final = 60.0
"""The process that asks Kafka is ended when nobody has asked for so long."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A worker as others may reach it."""

    member: str
    address: str

    @property
    def url(self) -> str:
        """Base URL of the worker's web server."""
        return f"http://{self.address}"


Known = Mapping[int, tuple[Owner, ...]]
"""By partition: its owner, at each address that it may have, the likeliest first."""


def owners_of(members: Iterable[tuple[str, Sequence[int]]], positions: Mapping[int, Committed]) -> Known:
    """Owners by partition, of client ids with the partitions that each was given, and of what is committed."""
    found: dict[int, tuple[Owner, ...]] = {}
    for client_id, partitions in members:
        member, joined_at = member_of(client_id)
        told = [one.address or "" for _, one in sorted(positions.items()) if one.author == member]
        for partition in partitions:
            own = positions.get(partition)
            first = own.address or "" if own is not None and own.author == member else ""
            addresses = dict.fromkeys(one for one in (first, *told, joined_at) if _ADDRESS.fullmatch(one))
            found[partition] = tuple(Owner(member, address) for address in addresses)
    return found


class Owners:
    """Which worker owns each partition of a flow. A separate process asks Kafka: the client may abort it (ADR 40)."""

    def __init__(self, settings: Settings, pipeline: Pipeline) -> None:
        self._settings, self._pipeline = settings, pipeline
        self._thread = ThreadPoolExecutor(1, f"{pipeline.name}-owners")
        self._probe: OffsetProbe | None = None
        self._positions = GroupPositions(settings, group=pipeline.group, topics=[pipeline.source])
        self._asked_s = -float("inf")
        self._known: Known = {}
        self._looking: asyncio.Future[Known] | None = None

    @property
    def known(self) -> Known:
        """Owners as the group's description said when it was last read."""
        return self._known

    async def look(self) -> Known:
        """As the group is now, or was `QUERY_OWNERS_INTERVAL_MS` ago.

        Raises:
            StreamsError: Kafka does not answer.

        """
        loop = asyncio.get_running_loop()
        if self._looking is None:
            if (time.monotonic() - self._asked_s) * 1000 < QUERY_OWNERS_INTERVAL_MS:
                return self._known
            self._looking = loop.run_in_executor(self._thread, self._ask)
            self._looking.add_done_callback(self._looked)
            loop.call_later(_KEPT_S, self._end_if_idle)
        return await asyncio.shield(self._looking)

    def close(self) -> None:
        """Stop asking for the group's members; does not wait."""
        self._thread.submit(self._end)
        self._thread.shutdown(wait=False)

    def _looked(self, done: "asyncio.Future[Known]") -> None:
        self._looking, self._asked_s = None, time.monotonic()
        if not done.cancelled() and done.exception() is None:
            self._known = done.result()

    def _ask(self) -> Known:
        if self._probe is None:
            self._probe = OffsetProbe(self._settings)
        flow, told = self._pipeline, self._probe.take([self._pipeline.group])
        first, count = told.base.get(flow.source, 0), dict(told.topics).get(flow.source, 0)
        members = next((one.members for one in told.groups if one.name == flow.group), None) or ()
        given = [
            (one.client_id, [number - first for number in one.partitions if first <= number < first + count])
            for one in members
        ]
        try:
            positions = self._positions.committed(range(count))
        except StreamsError as error:
            log.warning("addresses of workers are those with which they have joined", error=str(error))
            positions = {}
        return owners_of(given, positions)

    def _end_if_idle(self) -> None:
        if time.monotonic() - self._asked_s >= _KEPT_S - 1:
            try:
                self._thread.submit(self._end)
            except RuntimeError:  # closed meanwhile
                return

    def _end(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        self._positions.close()
