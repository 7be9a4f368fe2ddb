import csv
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logistics.flows.gps import GPS
from streams.errors import StreamsError, UsageError
from streams.ingest import IngestOptions, IngestProgress, Reading, ingest_file
from streams.kafka.partitioner import partition_of
from streams.local.stack import Stack
from streams.settings import load_settings
from tests.faults.proxy import Faults, Proxy
from tests.integration.kafka_helpers import (
    committed_records,
    decoded,
    delete_topics,
    fresh_topics,
    log_end,
    run,
    settings_of,
    start,
)
from tests.integration.workers import wait_until

pytestmark = pytest.mark.kafka

REAL = Path(__file__).parents[2] / "loadtest" / "data" / "positions-real.parquet"
REAL_ROWS = 139_098
TOPIC = GPS.source


def sent_events(stack: Stack) -> list[dict[str, Any]]:
    return decoded(committed_records(stack, TOPIC), GPS.subject)


def real_rows(count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(REAL).slice(0, count).to_pylist()
    return rows


def write(rows: list[dict[str, Any]], path: Path) -> Path:
    texts = [{name: v.isoformat() + "Z" if name == "event_time" else v for name, v in row.items()} for row in rows]
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case ".csv":
            with path.open("w", newline="", encoding="utf-8") as out:
                writer = csv.DictWriter(out, list(rows[0]))
                writer.writeheader()
                writer.writerows(texts)
        case ".ndjson":
            path.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
        case ".avro":
            fields: list[Any] = [{"name": name, "type": "double"} for name in rows[0]]
            fields[0]["type"], fields[1]["type"] = "string", {"type": "long", "logicalType": "timestamp-millis"}
            with path.open("wb") as out:
                fastavro.writer(out, {"type": "record", "name": "Row", "fields": fields}, rows)
    return path


def assert_real_rows_once(events: list[dict[str, Any]], shift_ms: int = 0) -> None:
    """Every row of the real file exactly once, and per device in the order of the file."""
    table = pq.read_table(REAL)
    devices, times = table["device_id"].to_pylist(), table["event_time"].cast(pa.int64()).to_pylist()
    expected = Counter((device, moment + shift_ms) for device, moment in zip(devices, times, strict=True))
    assert expected == Counter((event["device_id"], event["event_time"]) for event in events)
    assert len({event["event_id"] for event in events}) == REAL_ROWS
    sequences: dict[str, int] = {}
    for event in events:
        assert event["sequence"] == sequences.get(event["device_id"], 0)
        sequences[event["device_id"]] = event["sequence"] + 1


def test_all_formats_give_the_same_events_keyed_and_partitioned_like_java_does(stack: Stack, tmp_path: Path) -> None:
    rows = real_rows(3000)
    found = []
    for suffix in ("parquet", "csv", "ndjson", "avro"):
        fresh_topics(stack, flows=[GPS.name])
        path = write(rows, tmp_path / f"rows.{suffix}")
        result = ingest_file(settings_of(stack), path, TOPIC)
        assert (result.rows, result.sent, result.skipped, result.bad) == (3000, 3000, 0, 0), suffix
        # A commit returns before its markers are in every partition: until then a reader does not see all of it.
        wait_until(lambda: len(committed_records(stack, TOPIC)) == 3000, "all is visible")
        records = committed_records(stack, TOPIC)
        assert all(partition_of(record.key, 3) == record.partition for record in records)
        events = decoded(records, GPS.subject)
        assert [record.key.decode() for record in records] == [event["device_id"] for event in events]
        found.append(sorted(events, key=lambda event: event["event_id"]))
    assert found[0] == found[1] == found[2] == found[3]
    for event in found[0]:
        del event["event_id"], event["sequence"]
    expected = [{**row, "event_time": round(row["event_time"].timestamp() * 1000)} for row in naive_as_utc(rows)]
    by_row = sorted(expected, key=lambda row: (row["device_id"], row["event_time"]))
    assert by_row == sorted(found[0], key=lambda row: (row["device_id"], row["event_time"]))


def naive_as_utc(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "event_time": row["event_time"].replace(tzinfo=UTC)} for row in rows]


@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_run_again_every_row_is_there_exactly_once(stack: Stack, kills: int) -> None:
    """All runs shift times by what the first one has found."""
    fresh_topics(stack, flows=[GPS.name])
    arguments = ("ingest", "file", REAL, "--topic", TOPIC, "--rebase-time")
    seeded = random.Random(8123)
    for kill in range(kills):
        end = log_end(stack, TOPIC)
        process = start(stack, *arguments, "--rate", "20000")
        deadline = time.monotonic() + 60
        while log_end(stack, TOPIC) < end + 500:  # markers of the transaction that was cut off are not yet records
            assert time.monotonic() < deadline
            time.sleep(0.02)
        while kill == 0 and not committed_records(stack, TOPIC):
            assert time.monotonic() < deadline
        time.sleep(seeded.random())
        process.kill()
        process.wait()
    last = run(stack, *arguments, "--format", "json")
    assert last.returncode == 0, last.stderr
    figures = json.loads(last.stdout)
    assert figures["sent"] + figures["already_sent"] == figures["rows"] == REAL_ROWS
    assert min(figures["sent"], figures["already_sent"]) > 0
    events = sent_events(stack)
    assert_real_rows_once(events, figures["shift_ms"])
    newest = max(event["event_time"] for event in events)
    assert time.time() * 1000 - 10 * 60_000 < newest < time.time() * 1000


def test_the_same_content_is_the_same_work_and_other_choices_are_other_work(stack: Stack, tmp_path: Path) -> None:
    client = fresh_topics(stack, flows=[GPS.name])
    settings = settings_of(stack)
    path = write(real_rows(100), tmp_path / "a.csv")
    assert ingest_file(settings, path, TOPIC, IngestOptions(limit=30)).sent == 30
    renamed = path.rename(tmp_path / "b.csv")
    rest = ingest_file(settings, renamed, TOPIC)
    assert (rest.sent, rest.skipped) == (70, 30)
    assert ingest_file(settings, renamed, TOPIC).sent == 0
    assert ingest_file(settings, renamed, TOPIC, IngestOptions(limit=10)).sent == 0
    assert ingest_file(settings, renamed, TOPIC, IngestOptions(mapping={"speed_kmh": "altitude_m"})).sent == 100
    assert ingest_file(settings, renamed, TOPIC, IngestOptions(rebase_time=True)).sent == 100
    assert ingest_file(settings, renamed, TOPIC, IngestOptions(again=True)).sent == 100
    assert ingest_file(settings, renamed, TOPIC).sent == 0
    assert len(committed_records(stack, TOPIC)) == 400
    delete_topics(client, {TOPIC})
    fresh_topics(stack, flows=[GPS.name])
    assert ingest_file(settings, renamed, TOPIC).sent == 100


def test_a_second_process_takes_the_work_over_and_the_first_stops(stack: Stack) -> None:
    fresh_topics(stack, flows=[GPS.name])
    first = start(stack, "ingest", "file", REAL, "--topic", TOPIC, "--rate", "5000")
    deadline = time.monotonic() + 30
    while not committed_records(stack, TOPIC):
        assert time.monotonic() < deadline
    second = run(stack, "ingest", "file", REAL, "--topic", TOPIC, "--format", "json")
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["already_sent"] > 0
    _, said = first.communicate(timeout=30)
    assert first.returncode == 3, said
    assert "another process has started the same work" in said
    assert said.count("\n") == 1
    assert_real_rows_once(sent_events(stack))


def test_bad_rows_are_named_counted_written_and_not_sent(stack: Stack, tmp_path: Path) -> None:
    fresh_topics(stack, flows=[GPS.name])
    path, bad = write(real_rows(100), tmp_path / "rows.csv"), tmp_path / "bad.ndjson"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[10] = lines[10].replace(",2018-08-01", ",soon", 1)
    lines[20] = "d,2018-08-01T00:00:00Z,99.5,7,,,"
    lines[30] = "too,short"
    lines += [",2018-08-01T00:00:00Z,1,2,3,4,5"] * 30
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = run(stack, "ingest", "file", path, "--topic", TOPIC, "--bad-rows", bad)
    assert result.returncode == 100
    assert "line 11: event_time is a text of 14 characters, expected a time" in result.stderr
    assert "line 21: latitude is outside [-90, 90]" in result.stderr
    assert "line 31: has 2 cells, the header has 7" in result.stderr
    assert "line 102: device_id is missing" in result.stderr
    assert "... and 13 more" in result.stderr
    assert "33 of 130 rows are bad" in result.stderr
    assert "130 rows: 97 sent" in result.stdout
    written = [json.loads(line) for line in bad.read_text(encoding="utf-8").splitlines()]
    assert [11, 21, 31, *range(102, 132)] == [row["row"] for row in written]
    assert written[1]["data"]["latitude"] == "99.5"
    assert len(committed_records(stack, TOPIC)) == 97
    again = run(stack, "ingest", "file", path, "--topic", TOPIC)
    assert again.returncode == 100
    assert "130 rows: 0 sent, 97 already sent before, 33 bad" in again.stdout


def test_a_rate_is_kept_and_progress_is_reported(stack: Stack, tmp_path: Path) -> None:
    fresh_topics(stack, flows=[GPS.name])
    path = write(real_rows(2000), tmp_path / "rows.parquet")
    seen: list[IngestProgress] = []
    result = ingest_file(settings_of(stack), path, TOPIC, IngestOptions(rate=1000), progress=seen.append)
    assert 1.8 < result.seconds < 30
    assert seen[-1].sent == 2000
    assert seen[-1].part_done == 1.0


def test_what_cannot_be_ingested_is_one_clear_error(stack: Stack, tmp_path: Path) -> None:
    client = fresh_topics(stack, flows=[GPS.name])
    settings = settings_of(stack)
    with pytest.raises(UsageError, match=r"no flow reads 'other': --topic is one of gps\.positions\.v1"):
        ingest_file(settings, REAL, "other")
    path = tmp_path / "rows.csv"
    path.write_text("device,event_time,latitude,longitude\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no column for the field 'device_id': the file has device, event_time"):
        ingest_file(settings, path, TOPIC)
    assert ingest_file(settings, path, TOPIC, IngestOptions(mapping={"device_id": "device"})).rows == 0
    delete_topics(client, {TOPIC})
    with pytest.raises(StreamsError, match=r"there is no topic gps\.positions\.v1: run `streams topics apply`"):
        ingest_file(settings, REAL, TOPIC)
    fresh_topics(stack, flows=[GPS.name])


@pytest.mark.parametrize(
    ("variable", "address", "expected"),
    [
        pytest.param(  # in short: test_outages, a worker; every command waits for ten seconds
            "KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1", "no Kafka broker answers at 127.0.0.1:1", marks=pytest.mark.slow
        ),
        ("SCHEMA_REGISTRY_URL", "http://127.0.0.1:1", "no answer from the schema registry at http://127.0.0.1:1"),
    ],
)
def test_what_does_not_answer_is_said_in_one_line(stack: Stack, variable: str, address: str, expected: str) -> None:
    fresh_topics(stack, flows=[GPS.name])
    result = run(stack, "ingest", "file", REAL, "--topic", TOPIC, **{variable: address})
    assert result.returncode == 1
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1


def test_what_the_worker_would_reject_is_a_bad_row_and_stays_one_when_a_run_goes_on(
    stack: Stack, tmp_path: Path
) -> None:
    fresh_topics(stack, flows=[GPS.name])
    now = time.time_ns() // 1_000_000
    path = tmp_path / "rows.csv"
    rows = [f"d,{now - 1000},1,2", f"d,{now + 65_000},1,2", f"d,{now - 500},1,2"]
    path.write_text("device_id,event_time,latitude,longitude\n" + "\n".join(rows) + "\n", encoding="utf-8")
    settings = settings_of(stack)
    first = ingest_file(settings, path, TOPIC, IngestOptions(limit=2))
    assert (first.sent, first.bad) == (1, 1)
    wait_until(lambda: time.time_ns() // 1_000_000 > now + 6_000, "the time to be within the skew")
    rest = ingest_file(settings, path, TOPIC)
    assert (rest.sent, rest.skipped, rest.bad) == (1, 1, 1)
    assert [row.number for row in rest.bad_rows.first] == [3]
    again = ingest_file(settings, path, TOPIC, IngestOptions(again=True))
    assert (again.sent, again.bad) == (3, 0)


def test_how_a_file_is_read_makes_it_other_work_and_a_dry_run_does_none(stack: Stack, tmp_path: Path) -> None:
    fresh_topics(stack, flows=[GPS.name])
    settings = settings_of(stack)
    path = tmp_path / "rows.csv"
    path.write_text("device_id,event_time,latitude,longitude\nd,2024-07-01T12:00:00,1,2\n", encoding="utf-8")
    assert ingest_file(settings, path, TOPIC, IngestOptions(dry_run=True)).valid == 1
    assert ingest_file(settings, path, TOPIC).sent == 1
    assert ingest_file(settings, path, TOPIC, IngestOptions(reading=Reading())).skipped == 1
    assert ingest_file(settings, path, TOPIC, IngestOptions(reading=Reading(timezone="Europe/Berlin"))).sent == 1
    assert ingest_file(settings, path, TOPIC, IngestOptions(reading=Reading(timezone="Europe/Berlin"))).skipped == 1
    moments = [event["event_time"] for event in sent_events(stack)]
    assert moments == [1_719_835_200_000, 1_719_828_000_000]


@pytest.fixture
def network_again(proxy: Proxy) -> Iterator[None]:
    yield
    proxy.faults = Faults()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("network_again")
@pytest.mark.parametrize("faults", [Faults(silent=True), Faults(lose_commit_answers=True)], ids=["silence", "commits"])
def test_a_run_that_loses_the_broker_ends_in_words_and_the_next_one_goes_on(
    stack: Stack, proxy: Proxy, faults: Faults
) -> None:
    fresh_topics(stack, flows=[GPS.name])
    settings = load_settings(kafka_bootstrap_servers=proxy.address, schema_registry_url=stack.registry_url)

    def break_the_network(progress: IngestProgress) -> None:
        if progress.sent > 20_000:
            proxy.faults = faults

    begun = time.monotonic()
    with pytest.raises(StreamsError, match=r"sending to gps\.positions\.v1 at .* run the same command again"):
        ingest_file(settings, REAL, TOPIC, IngestOptions(rate=20_000), progress=break_the_network)
    assert time.monotonic() - begun < 240
    proxy.faults = Faults()
    rest = ingest_file(settings, REAL, TOPIC)
    assert rest.skipped > 0
    assert_real_rows_once(sent_events(stack))


def test_several_files_and_standard_input_are_sent_each_once(stack: Stack, tmp_path: Path) -> None:
    fresh_topics(stack, flows=[GPS.name])
    for name, first in (("a.csv", 0), ("b.ndjson", 100)):
        write(real_rows(200)[first : first + 100], tmp_path / name)
    arguments = ("ingest", "file", tmp_path / "*.*", "--topic", TOPIC, "--format", "json")
    figures = json.loads(run(stack, *arguments).stdout)
    assert [(one["rows"], one["sent"]) for one in figures["files"]] == [(100, 100), (100, 100)]
    assert json.loads(run(stack, *arguments).stdout)["already_sent"] == 200
    assert len(committed_records(stack, TOPIC)) == 200
