"""Answers for the whole table: from here where this worker has the partition, else by asking the worker that has it.

An owner is looked for through rebalances and restores, for `QUERY_WAIT_MS_MAX`; then the request is refused in words. A
question that came from another worker is never passed on: whoever has not what it asks for says so (421).
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import aiohttp
import pyarrow as pa
import structlog
from yarl import URL

from streams.deadletters.web.refused import Refused
from streams.errors import StreamsError
from streams.limits import QUERY_SCANS_AT_ONCE, QUERY_SCANS_WAITING_MAX, QUERY_WAIT_MS_MAX
from streams.resilience.retry import Backoff
from streams.tables.asked import Asked
from streams.tables.lookups import Found
from streams.tables.metrics import TableMetrics
from streams.tables.owners import Owner
from streams.tables.portion import Part, Portion, merged, uncovered
from streams.tables.rendering import ARROW, batch_of
from streams.tables.served import ServedFlow
from streams.tables.shape import TableShape

log = structlog.get_logger(__name__)

ROUTED: Final = "streams-routed"
"""Header of a question that another worker asks."""
PARTS: Final = "parts"
THROUGH: Final = "through"
_PAUSE: Final = Backoff(first_s=0.05, pause_s_max=0.5)
_ANSWER_S_MAX: Final = 10.0
RETRY_AFTER_S: Final = 2
STOPS: Final = "this worker stops: ask another one"


@dataclass(frozen=True, slots=True)
class Passed:
    """An answer of another worker, to be given as it is."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Question:
    """A request as it is passed on."""

    path: str
    query: str
    authorization: str | None

    def headers(self, accept: str) -> dict[str, str]:
        """Headers of a request that is passed on to another worker."""
        found = {ROUTED: "1", "Accept": accept}
        return found if self.authorization is None else found | {"Authorization": self.authorization}


class NoOwner(StreamsError):
    """Nobody has a partition now; asking again soon may help."""


class Router:
    """Answers or routes requests to one worker, on its event loop."""

    def __init__(self, metrics: TableMetrics) -> None:
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False
        self._scanning = asyncio.Semaphore(QUERY_SCANS_AT_ONCE)
        self._scans = 0

    async def close(self) -> None:
        """Ask nobody any more: requests that come late are told that this worker stops."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    async def one(self, flow: ServedFlow, table: TableShape, key: bytes, question: Question) -> Found | Passed:
        """The row of a key that is not here: as another worker gives it, or from here once it is.

        Raises:
            NoOwner: nobody has the key's partition, or it does not answer.
            Refused: the owner refuses.

        """
        waits = _Waits()
        while True:
            homes = flow.state.homes(key)
            for owner in await self._owners(flow, homes, waits):
                passed = await self._ask(owner, question, waits)
                if passed is not None:
                    return passed
            await waits.pause(f"no worker serves {_named(flow, homes)} now")
            found = await flow.lookups.find(table, key)
            if found.is_here:
                return found

    async def rows(self, flow: ServedFlow, table: TableShape, asked: Asked, question: Question) -> Portion:
        """Rows of a range, of all partitions.

        Raises:
            NoOwner: nobody has one of the partitions, or it does not answer.
            Refused: an owner refuses; or too many ranges are being read.

        """
        waits = _Waits()
        while True:
            portions = [await self.rows_here(flow, table, asked)]
            missing = uncovered(portions[0].parts, flow.state.divisions()[0])
            if missing:
                owners = await self._owners(flow, missing, waits)
                answers = await asyncio.gather(*(self._portion(owner, question, waits) for owner in owners))
                portions += [one for one in answers if one is not None]
                missing = uncovered([part for one in portions for part in one.parts], flow.state.divisions()[0])
            if not missing:
                return merged(portions, limit=asked.limit)
            await waits.pause(f"no worker serves {_named(flow, missing)} now")

    async def rows_here(self, flow: ServedFlow, table: TableShape, asked: Asked) -> Portion:
        """Rows of a range, of the partitions at work here.

        Raises:
            Refused: too many ranges are being read.

        """
        if self._scans >= QUERY_SCANS_WAITING_MAX:
            why = f"{self._scans} requests for ranges wait already"
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, why, retry_s=RETRY_AFTER_S)
        self._scans += 1
        try:
            async with self._scanning:
                return await asyncio.to_thread(flow.stored.scan, table, asked)
        finally:
            self._scans -= 1

    async def _owners(self, flow: ServedFlow, partitions: list[int], waits: "_Waits") -> list[Owner]:
        """Other workers that were given the partitions.

        Raises:
            NoOwner: this worker stops.

        """
        if self._is_closed:
            raise NoOwner(STOPS)
        known = flow.owners.known
        if waits.is_first and all(partition in known for partition in partitions[:1]):
            found = known
        else:
            try:
                found = await flow.owners.look()
            except StreamsError as error:
                waits.why = str(error)
                found = known
        named = [owner for partition in partitions for owner in found.get(partition, ())]
        return [owner for owner in dict.fromkeys(named) if owner.member != flow.member]

    async def _ask(self, owner: Owner, question: Question, waits: "_Waits", accept: str = "") -> Passed | None:
        """What a worker answers; None: it has not what is asked for, or there is no answer.

        Raises:
            NoOwner: this worker stops.

        """
        if self._is_closed:
            raise NoOwner(STOPS)
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=_ANSWER_S_MAX, connect=2.0)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit_per_host=64))
        url = f"{owner.url}{question.path}?{question.query}" if question.query else f"{owner.url}{question.path}"
        try:
            async with self._session.get(
                URL(url, encoded=True), headers=question.headers(accept or "*/*"), allow_redirects=False
            ) as answer:
                passed = Passed(answer.status, answer.headers.get("Content-Type", ""), await answer.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if self._is_closed:
                raise NoOwner(STOPS) from error
            waits.why = f"{owner.member} does not answer at {owner.url} ({type(error).__name__})"
            self._metrics.routed.labels("failed").inc()
            return None
        if passed.status in {HTTPStatus.OK, HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST}:
            self._metrics.routed.labels("answered").inc()
            return passed
        if passed.status == HTTPStatus.MISDIRECTED_REQUEST:
            self._metrics.routed.labels("elsewhere").inc()
            waits.why = f"{owner.member}, which has it by the group, does not serve it yet"
            return None
        self._metrics.routed.labels("failed").inc()
        if passed.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            why = f"{owner.member} at {owner.url}, which has the partition, refuses: give all workers the same tokens"
            raise Refused(passed.status, why)
        waits.why = f"{owner.member} at {owner.url} answers with {passed.status}"
        return None

    async def _portion(self, owner: Owner, question: Question, waits: "_Waits") -> Portion | None:
        passed = await self._ask(owner, question, waits, ARROW)
        if passed is None or passed.status != HTTPStatus.OK:
            return None
        try:
            rows = await asyncio.to_thread(batch_of, passed.body)
            told = rows.schema.metadata or {}
            return Portion(rows.replace_schema_metadata(None), _parts(told[PARTS.encode()]), _through(told))
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            waits.why = f"{owner.url} answers with something else than rows ({error})"
            return None


class _Waits:
    """Pauses between attempts, up to `QUERY_WAIT_MS_MAX`."""

    def __init__(self) -> None:
        self._until_s = time.monotonic() + QUERY_WAIT_MS_MAX / 1000
        self._attempts = 0
        self.why = ""
        """What the last attempt has met."""

    @property
    def is_first(self) -> bool:
        """Whether nothing was tried in vain so far."""
        return not self._attempts

    async def pause(self, what: str) -> None:
        """Wait before the next attempt.

        Raises:
            NoOwner: it has taken too long.

        """
        self._attempts += 1
        pause_s = _PAUSE.jittered_s(self._attempts)
        if time.monotonic() + pause_s > self._until_s:
            why = f" ({self.why})" if self.why else ""
            raise NoOwner(f"{what}: a rebalance or a restore is under way, or no worker runs that has it{why}")
        await asyncio.sleep(pause_s)


def told_of(portion: Portion) -> dict[str, str]:
    """What a portion says beside its rows, for the worker that has asked."""
    parts = ",".join(f"{part.partition}/{part.of}" for part in portion.parts)
    return {PARTS: parts} if portion.through is None else {PARTS: parts, THROUGH: portion.through.hex()}


def _parts(told: bytes) -> frozenset[Part]:
    pairs = (text.split("/") for text in told.decode().split(",") if text)
    return frozenset(Part(int(partition), int(of)) for partition, of in pairs)


def _through(told: Mapping[bytes, bytes]) -> bytes | None:
    found = told.get(THROUGH.encode())
    return None if found is None else bytes.fromhex(found.decode())


def _named(flow: ServedFlow, partitions: list[int]) -> str:
    return ", ".join(f"{flow.pipeline.source}-{partition}" for partition in partitions)
