"""HEALTHCHECK of the image: asks `/healthz` of the server that the container's command has opened.

It finds the process that runs `streams` and the ports on which that listens, so that it fits every command, port and
`STREAMS_WEB_HOST`. A command that opens no port (`topics apply`, `pull`) is healthy while it runs.

Exit status: 0 alive; 1 not, and why.
"""

import http.client
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import PurePath
from typing import Final

import psutil

TIMEOUT_S: Final = 4.0
COMMAND: Final = "streams"
WORDS_LOOKED_AT: Final = 3
"""Of a command line: an interpreter, an option of it, and the script."""
ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - is asked, not listened on


def processes() -> list[psutil.Process]:
    """Those that run `streams`, the oldest first: the command, then what it has started."""
    found = []
    for process in psutil.process_iter(["cmdline", "create_time"]):
        words = (process.info["cmdline"] or [])[:WORDS_LOOKED_AT]
        if any(PurePath(word).name == COMMAND for word in words):
            found.append(process)
    return sorted(found, key=lambda process: (process.info["create_time"], process.pid))


def listeners(process: psutil.Process) -> Iterator[tuple[str, int]]:
    """Host and port of each server of a process."""
    for connection in process.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN:
            yield ANY_ADDRESS.get(connection.laddr.ip, connection.laddr.ip), connection.laddr.port


def failure(host: str, port: int) -> str | None:
    """What is wrong with the server there; None: it is alive."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{host} port {port}: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if status == HTTPStatus.OK else f"{host} port {port}: /healthz answers {status}"


def main() -> str | None:
    """What is wrong with the container; None: nothing."""
    found = processes()
    if not found:
        return f"no process runs {COMMAND}"
    for process in found:
        try:
            servers = sorted(set(listeners(process)))
        except psutil.Error as error:
            return f"process {process.pid}: {error}"
        if servers:
            return next(filter(None, (failure(*server) for server in servers)), None)
    return None


if __name__ == "__main__":
    sys.exit(main())
