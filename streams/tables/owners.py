"""Which worker has which partitions of a flow, and where its web server answers: by what Kafka knows of the group.

A worker says in its client id where its web server listens (`gps-4f1c@10.0.0.5:6066`); the group's description has the
client id of each member and the partitions that it was given. No host in it (`gps-4f1c@:6066`): the server listens on
all addresses, and the one by which the broker knows the member is used.
"""

import asyncio
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog

from streams.flow.declaration import Pipeline
from streams.kafka.offsets_process import OffsetProbe
from streams.kafka.round import Round
from streams.limits import QUERY_OWNERS_INTERVAL_MS
from streams.settings import Settings
from streams.sources.kafka.membership import member_of

log = structlog.get_logger(__name__)

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):([0-9]{1,5})")
_KEPT_S: Final = 60.0
"""The process that asks Kafka is ended when nobody has asked for so long."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A worker as others reach it."""

    member: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """Of its web server."""
        return f"http://{self.host}:{self.port}"


def owner_in(client_id: str, host: str) -> Owner | None:
    """What a member's client id, and the address by which the broker knows it, say; None: it serves nothing."""
    member, address = member_of(client_id)
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return None
    name, port = found.groups()
    seen = host.lstrip("/")
    return Owner(member, name or (f"[{seen}]" if ":" in seen else seen), int(port))


def owners_in(found: Round, group: str, source: str) -> dict[int, Owner]:
    """By partition of the source: the member of the group that was given it, where it says its address."""
    members = next((one.members for one in found.groups if one.name == group), None) or ()
    first, count = found.base.get(source, 0), dict(found.topics).get(source, 0)
    return {
        number - first: owner
        for member in members
        if (owner := owner_in(member.client_id, member.host)) is not None
        for number in member.partitions
        if first <= number < first + count
    }


class Owners:
    """Of one flow. Kafka is asked by a process of its own: the client may abort its process (docs/adr/0040)."""

    def __init__(self, settings: Settings, pipeline: Pipeline) -> None:
        self._settings, self._pipeline = settings, pipeline
        self._thread = ThreadPoolExecutor(1, f"{pipeline.name}-owners")
        self._probe: OffsetProbe | None = None
        self._asked_s = -float("inf")
        self._known: Mapping[int, Owner] = {}
        self._looking: asyncio.Future[Mapping[int, Owner]] | None = None

    @property
    def known(self) -> Mapping[int, Owner]:
        """By partition, as of the last look."""
        return self._known

    async def look(self) -> Mapping[int, Owner]:
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
        """Ask no more."""
        self._thread.submit(self._end)
        self._thread.shutdown(wait=False)

    def _looked(self, done: "asyncio.Future[Mapping[int, Owner]]") -> None:
        self._looking, self._asked_s = None, time.monotonic()
        if not done.cancelled() and done.exception() is None:
            self._known = done.result()

    def _ask(self) -> Mapping[int, Owner]:
        if self._probe is None:
            self._probe = OffsetProbe(self._settings)
        found = owners_in(self._probe.take([self._pipeline.group]), self._pipeline.group, self._pipeline.source)
        log.debug("looked for owners", flow=self._pipeline.name, owners={p: one.url for p, one in found.items()})
        return found

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
