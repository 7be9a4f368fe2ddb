"""The scene of faults of sinks: a load on their topics, processes of sinks, and what their targets have beside it.

The oracle reads topic and target and compares them as multisets; it shares no code with sinks.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import duckdb
from confluent_kafka import KafkaException
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from loadtest.oracle.compare import Report
from streams.local.stack import Stack
from tests.databases import Database, Postgres
from tests.endpoint import Endpoint
from tests.faults.harness import RECOVERY_S_MAX, Result
from tests.integration.sinks import Sink, Yard, minutes_in
from tests.integration.workers import wait_until

RECORDS: Final = {"minutes": 100, "states": 60}
"""In a transaction."""


class SinkLoad:
    """Windows and states in transactions, about 800 records a second, through whatever befalls the broker."""

    def __init__(self, yard: Yard) -> None:
        self._yard, self._stop = yard, threading.Event()
        self._thread = threading.Thread(target=self._run, name="sink-load")
        self._failure: BaseException | None = None
        self.interrupted = 0
        """Transactions whose outcome the producer was not told."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(RECOVERY_S_MAX)
        if kind is None:
            assert not self._thread.is_alive(), "the producer hangs"
            assert self._failure is None, self._failure

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.2):
                try:
                    self._yard.minutes(RECORDS["minutes"])
                    self._yard.states(RECORDS["states"])
                except KafkaException:  # of a broker that went down in a transaction
                    self.interrupted += 1
                    self._yard.renew_producer()
        except BaseException as error:  # noqa: BLE001 - it is raised by the test
            self._failure = error


# --- what a target has, and what it should have -----------------------------------------------------------------------


class Copy(Protocol):
    """What a sink copies, in the topic and in the target."""

    def expected(self) -> Counter[str]:
        """By the topic."""
        ...

    def found(self) -> Counter[str]:
        """By the target."""
        ...

    def reaches(self, expected: Counter[str]) -> bool:
        """Whether the target has what the topic had at an earlier moment."""
        ...

    def judged(self) -> Report:
        """Differences now that nothing is sent any more."""
        ...


@dataclass(frozen=True)
class Rows:
    """Every record is a row."""

    in_topic: Callable[[], list[int]]
    in_target: Callable[[], list[int]]

    def expected(self) -> Counter[str]:
        return Counter(map(str, self.in_topic()))

    def found(self) -> Counter[str]:
        return Counter(map(str, self.in_target()))

    def reaches(self, expected: Counter[str]) -> bool:
        return not expected - self.found()

    def judged(self) -> Report:
        expected, found = self.expected(), self.found()
        return Report(events=expected.total(), lost=(expected - found).total(), duplicated=(found - expected).total())


@dataclass(frozen=True)
class Table:
    """The last record of each key is its row."""

    in_topic: Callable[[], list[tuple[str, int]]]
    in_target: Callable[[], list[tuple[str, int]]]

    def expected(self) -> Counter[str]:
        return Counter(dict(self.in_topic()))

    def found(self) -> Counter[str]:
        return Counter(dict(self.in_target()))

    def reaches(self, expected: Counter[str]) -> bool:
        found = self.found()
        return all(found[key] >= events for key, events in expected.items())

    def judged(self) -> Report:
        expected, found = self.in_topic(), self.in_target()
        wrong = {*expected} ^ {*found}
        surplus = len(found) - len({key for key, _ in found})
        return Report(events=len(expected), duplicated=surplus, table_mismatches=len({key for key, _ in wrong}))


# --- the scene --------------------------------------------------------------------------------------------------------


@dataclass
class SinkScene:
    """Sinks of each kind with their targets."""

    yard: Yard
    database: Database
    postgres: Postgres
    endpoint: Endpoint
    result: Result
    copies: dict[str, Copy] = field(init=False)
    _struck_at: float = 0.0

    def __post_init__(self) -> None:
        """Name the copy of each sink."""
        yard, lake = self.yard, self.yard.folder / "lake"
        self.copies = {
            "minutes": Rows(yard.expected_minutes, self._minutes_in_database),
            "vehicles": Table(yard.expected_states, self._states_in_database),
            "lake": Rows(yard.expected_minutes, lambda: minutes_in(f"{lake}/minutes")),
            "lake-vehicles": Table(yard.expected_states, lambda: _states_in_lake(lake / "vehicles")),
            "posts": Rows(yard.expected_minutes, self._minutes_at_endpoint),
            "hook": Table(yard.expected_states, self._states_at_endpoint),
        }

    def start(self, *names: str) -> list[Sink]:
        """One process of each of these sinks."""
        started = [self.yard.sink(name) for name in names]
        for sink in started:
            sink.wait_ready()
        return started

    def struck(self) -> None:
        """Count a blow; the clock runs from here."""
        self.result.injected += 1
        self.lifted()

    def lifted(self) -> None:
        """What lasted is over; the clock runs from here."""
        self._struck_at = time.monotonic()

    def recovers(self, *names: str) -> None:
        """Wait until the targets have what is in the topics by now; note how long it took since the last blow."""
        copies = {name: self.copies[name] for name in names}
        expected = {kind: copy.expected() for kind, copy in {type(copy): copy for copy in copies.values()}.items()}
        for name, copy in copies.items():
            wait_until(
                lambda copy=copy: copy.reaches(expected[type(copy)]),  # type: ignore[misc]
                f"{name} has what was in its topic",
                timeout_s=RECOVERY_S_MAX,
            )
        self.result.recover_s.append(time.monotonic() - self._struck_at)

    def each_once(self, *names: str) -> None:
        """Delete some keys, wait until the targets have everything; the oracle must find nothing lost or doubled."""
        self.yard.states(20, deleted=["van-1", "van-2", "nobody"])
        copies = {name: self.copies[name] for name in names}
        with suppress(AssertionError):  # it is said below, with what differs
            wait_until(lambda: all(copy.judged().ok for copy in copies.values()), "all is there", timeout_s=60)
        time.sleep(3)  # what would be written twice is written by then
        whole, judges_tables = Report(), any(isinstance(copy, Table) for copy in copies.values())
        for name, copy in copies.items():
            report = copy.judged()
            assert report.ok, f"{name}: {report}"
            assert report.events > 0
            whole.add(report)
        # Order is nothing that a target keeps.
        unjudged = {"out_of_order": None} if judges_tables else {"out_of_order": None, "table_mismatches": None}
        self.result.report = {**whole.as_dict(), **unjudged}

    def note(self, text: str) -> None:
        """Say something in the summary."""
        self.result.notes.append(text)

    def sent_again(self) -> int:
        """Rows that the endpoint got more than once, with the same id each time."""
        ids = Counter(str(row["id"]) for row in self.endpoint.taken)
        return ids.total() - len(ids)

    def _minutes_in_database(self) -> list[int]:
        found = self.database.rows("select (extract(epoch from window_start) * 1000)::bigint from minutes")
        return [row[0] for row in found]

    def _states_in_database(self) -> list[tuple[str, int]]:
        return self.database.rows("select device_id, events from vehicles")

    def _minutes_at_endpoint(self) -> list[int]:
        """As an endpoint has them that ignores an id which it has."""
        found = {
            str(change["id"]): str(change["row"]["window_start"])
            for change in list(self.endpoint.taken)
            if change["id"].startswith("posts:")
        }
        return [round(datetime.fromisoformat(text).timestamp() * 1000) for text in found.values()]

    def _states_at_endpoint(self) -> list[tuple[str, int]]:
        """As an endpoint has them that ignores a change whose offset is lower than that of the one it has."""
        newest: dict[str, tuple[int, int | None]] = {}
        for change in list(self.endpoint.taken):
            if change["id"].startswith("hook:"):
                key, offset = str(change["row"]["device_id"]), int(change["id"].rpartition("@")[2])
                if offset >= newest.get(key, (-1, None))[0]:
                    newest[key] = offset, change["row"].get("events")
        return [(key, events) for key, (_, events) in newest.items() if events is not None]


@contextmanager
def sink_scene_of(stack: Stack, directory: Path, postgres: Postgres, result: Result) -> Iterator[SinkScene]:
    """Fresh topics and targets, no process of a sink yet."""
    database, endpoint = postgres.database(), Endpoint()
    yard = Yard(stack, directory, postgres_url=database.url, endpoint=endpoint.url)
    try:
        yield SinkScene(yard, database, postgres, endpoint, result)
    finally:
        yard.close()
        endpoint.close()


def _states_in_lake(path: Path) -> list[tuple[str, int]]:
    try:
        vehicles = DeltaTable(str(path)).to_pyarrow_dataset()
    except TableNotFoundError:
        return []
    found: list[tuple[str, int]] = duckdb.execute("select device_id, events from vehicles").fetchall()
    assert len(found) == vehicles.count_rows()
    return found
