"""Asks the tables of workers, and reads from their topics every version of every row that was committed."""

import http.client
import io
import json
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Protocol, Self
from urllib.parse import quote, urlencode

import fastavro

from streams.local.stack import Stack
from streams.schemas.catalog import Catalog
from tests.integration.workers import read

STATE: Final = "vehicles.state.v1"


def ask(port: int, path: str, *parameters: tuple[str, str], timeout_s: float = 20.0) -> tuple[int, Any]:
    """Status and document of an answer; status 0: nobody answers.

    Raises:
        AssertionError: the answer is no JSON.

    """
    query = f"?{urlencode(parameters)}" if parameters else ""
    try:
        status, text = _answer(f"http://127.0.0.1:{port}{path}{query}", timeout_s)
    except (OSError, http.client.HTTPException):  # the connection, also in mid-answer
        return 0, None
    try:
        return status, json.loads(text)
    except ValueError as error:
        raise AssertionError(f"{path}{query}: {status} with {text[:300]!r}, which is no JSON") from error


def _answer(url: str, timeout_s: float) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310 - our own
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def path_of(key: str, table: str = STATE) -> str:
    return f"/tables/{table}/{quote(key, safe='')}"


def all_rows(port: int, *parameters: tuple[str, str], table: str = STATE) -> dict[str, dict[str, Any]]:
    """All rows that satisfy the parameters, page after page."""
    found: dict[str, dict[str, Any]] = {}
    cursor = ""
    while True:
        page = [*parameters, ("cursor", cursor)] if cursor else list(parameters)
        status, document = ask(port, f"/tables/{table}", *page)
        assert status == 200, document
        for item in document["rows"]:
            assert item["key"] not in found, "no key comes twice"
            found[item["key"]] = item["row"]
        cursor = document["next"]
        if not cursor:
            return found


def committed_versions(stack: Stack, table: str = STATE) -> dict[str, list[dict[str, Any]]]:
    """By key: each row that was ever committed, oldest first, as JSON has it; decoded by fastavro."""
    schema = fastavro.parse_schema(json.loads(Catalog.load().latest(f"{table}-value").text))
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for message in read(stack, table):
        key, value = message.key(), message.value()
        assert isinstance(key, bytes)
        if value is not None:
            assert isinstance(value, bytes)
            row = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None)
            assert isinstance(row, dict)
            found[key.decode()].append({name: _plain(it) for name, it in row.items()})
    return dict(found)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03d}Z"
    return value


class Served(Protocol):
    """A worker, or what answers in its place."""

    @property
    def port(self) -> int:
        """Of its web server."""


class Asking:
    """Asks workers in turn for keys, as long as a block runs, and keeps what they answer.

    What is no answer of tables (no JSON, a 503 without a reason) fails the test at the end of the block.
    """

    def __init__(self, workers: Sequence[Served], keys: Sequence[str], *, threads: int = 3) -> None:
        self.answers: list[tuple[str, dict[str, Any] | None]] = []
        """Key and row; None: the worker has said that there is none."""
        self.refused = 0
        """Requests that were refused in words (503), since nobody had the partition."""
        self.unanswered = 0
        self.wrong: list[Any] = []
        self._workers, self._keys = workers, keys
        self._ends = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._guarded, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        if self._failures and error is None:
            raise self._failures[0]

    def wait(self) -> None:
        """Wait until every thread has failed."""
        for thread in self._threads:
            thread.join(timeout=10)

    def _guarded(self, number: int) -> None:
        """Keep what ends the thread, for whoever ends the block."""
        try:
            self._run(number)
        except Exception as failure:  # noqa: BLE001 - raised again in the thread of the test
            self._failures.append(failure)

    def _run(self, number: int) -> None:
        while not self._ends.is_set():
            worker = self._workers[number % len(self._workers)]
            key = self._keys[number * 7919 % len(self._keys)]
            number += 1
            if number % 10:
                self._point(worker, key)
            else:
                self._range(worker)

    def _point(self, worker: Served, key: str) -> None:
        status, document = ask(worker.port, path_of(key))
        if status == 200:
            self.answers.append((key, document["row"]))
        elif status == 404:
            self.answers.append((key, None))
        else:
            self._other(status, document)

    def _range(self, worker: Served) -> None:
        status, document = ask(worker.port, f"/tables/{STATE}", ("limit", "1000"))
        if status == 200:
            self.answers += [(item["key"], item["row"]) for item in document["rows"]]
        else:
            self._other(status, document)

    def _other(self, status: int, document: Any) -> None:
        if status == 503:
            assert document["error"], "it says why"
            self.refused += 1
        elif status == 0:
            self.unanswered += 1
            time.sleep(0.1)
        else:
            self.wrong.append((status, document))


def never_committed(asking: Asking, versions: dict[str, list[dict[str, Any]]]) -> list[Any]:
    """Answers that equal no committed row of the table's topic."""
    known = {key: {json.dumps(row, sort_keys=True) for row in rows} for key, rows in versions.items()}
    return [
        (key, row)
        for key, row in asking.answers
        if row is not None and json.dumps(row, sort_keys=True) not in known.get(key, set())
    ]
