"""Tables of a supervisor: what becomes of requests that its processes do not answer."""

import asyncio
import socket

import aiohttp

from streams.listening import listening
from streams.settings import Settings
from streams.worker.supervisor_tables import PassedOn
from streams.worker.supervisor_web import Asked, SupervisorWeb


class Silent(Asked):
    """A process that takes connections and answers nothing."""

    @property
    def is_running(self) -> bool:
        return True


async def stopping() -> tuple[list[int], list[str | None], list[str]]:
    """Status, Retry-After and words of a request under way, and of one that comes late."""
    with listening("127.0.0.1", [0]) as process, listening("127.0.0.1", [0]) as free:
        port = free.getsockname()[1]
        free.close()
        asked = Silent(0, process.fileno())
        tables = PassedOn(Settings(), [asked])
        web = SupervisorWeb([asked], host="127.0.0.1", port=port, tables=tables)
        await web.start()
        url = f"http://127.0.0.1:{port}/tables/some/key"
        async with aiohttp.ClientSession() as session:
            under_way = asyncio.create_task(session.get(url))
            loop = asyncio.get_running_loop()
            process.settimeout(0)
            taken: socket.socket = (await loop.sock_accept(process))[0]
            await loop.sock_recv(taken, 10)
            await tables.close()
            answers = [await under_way, await session.get(url)]
            words = [str((await one.json())["error"]) for one in answers]
            taken.close()
        await web.stop()
        return [one.status for one in answers], [one.headers.get("Retry-After") for one in answers], words


def test_a_supervisor_that_stops_says_so_to_those_who_wait_and_those_who_come() -> None:
    status, retry, words = asyncio.run(asyncio.wait_for(stopping(), 10))
    assert [503, 503] == status
    assert ["2", "2"] == retry
    assert ["this worker stops: ask another one"] * 2 == words
