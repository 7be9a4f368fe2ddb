"""What the processes of one gateway say together: metrics with the label `process`, and readiness."""

import asyncio
import http
from collections.abc import Awaitable
from typing import Final

import aiohttp

from streams.gateway.crew import Member
from streams.worker.merged_metrics import Families, merged

_ANSWER_S_MAX: Final = 2.0
_LOOPBACK: Final = "127.0.0.1"
_OPENMETRICS: Final = {"Accept": "application/openmetrics-text; version=1.0.0"}
Answer = tuple[int, str]


class Together:
    """Asks every process of a gateway, this one too, at its private port."""

    def __init__(self, member: Member) -> None:
        self._ports = member.ports

    def is_public(self, port: int) -> bool:
        """Whether a request that came in at this port is one for all."""
        return port not in self._ports

    async def metrics(self) -> Families:
        """Samples of all processes that answer."""
        answers = await self._each("/metrics")
        texts = {number: found[1] for number, found in answers.items() if found and found[0] == http.HTTPStatus.OK}
        return Families(merged(texts))

    async def unready(self) -> list[str]:
        """Why a process takes no events, of each that does not."""
        answers = await self._each("/readyz")
        return [
            f"process {number}: {'does not answer' if found is None else found[1].strip()}"
            for number, found in answers.items()
            if found is None or found[0] != http.HTTPStatus.OK
        ]

    async def _each(self, path: str) -> dict[int, Answer | None]:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S_MAX)
        async with aiohttp.ClientSession(timeout=timeout, headers=_OPENMETRICS) as session:
            asked: list[Awaitable[Answer | None]] = [self._ask(session, port, path) for port in self._ports]
            return dict(enumerate(await asyncio.gather(*asked)))

    @staticmethod
    async def _ask(session: aiohttp.ClientSession, port: int, path: str) -> Answer | None:
        try:
            async with session.get(f"http://{_LOOPBACK}:{port}{path}", allow_redirects=False) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
