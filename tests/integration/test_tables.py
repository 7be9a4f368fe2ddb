"""Tables are asked over HTTP while workers process, abort, die and hand partitions over; an oracle judges."""

import io
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from streams.kafka.partitioner import partition_of
from streams.local.stack import Stack
from tests.integration.forked import ForkedProcess
from tests.integration.kafka_helpers import run
from tests.integration.tables import STATE, Asking, all_rows, ask, committed_versions, never_committed, path_of
from tests.integration.workers import (
    NEVER_IDLE,
    PARTITIONS,
    Traffic,
    Worker,
    fresh_world,
    rough_shape,
    wait_drained,
    wait_until,
    workers,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

SEED = 25_001


def newest(versions: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {key: rows[-1] for key, rows in versions.items()}


def changes_of(port: int, path: str, *, last_id: str = "", until: int) -> list[tuple[str, dict[str, Any]]]:
    """Ids and changes of a stream, up to and without the first event after `until` changes, one after the other."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if last_id:
        request.add_header("Last-Event-ID", last_id)
    found: list[tuple[str, dict[str, Any]]] = []
    with urllib.request.urlopen(request, timeout=30) as stream:  # noqa: S310 - our own
        at = ""
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "id":
                at = value
            elif name == "data":
                found += [(at, change) for change in json.loads(value).get("changes", [])]
                if len(found) >= until:
                    return found
    return found


@pytest.fixture
def one(stack: Stack, tmp_path: Path) -> Iterator[Worker]:
    with workers(stack, tmp_path, "a") as (worker,):
        yield worker


def test_a_table_is_asked_by_key_by_range_by_conditions_and_followed(stack: Stack, one: Worker, tmp_path: Path) -> None:
    probe = fresh_world(stack)
    one.start().wait_ready()
    with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=2_000) as traffic:
        traffic.wait_for(4_000)
    wait_drained(probe, one)
    rows = newest(committed_versions(stack))
    keys = sorted(rows, key=str.encode)

    status, listed = ask(one.port, "/tables")
    assert status == 200
    [table] = listed["tables"]
    assert (STATE, "gps", PARTITIONS, list(range(PARTITIONS))) == (
        table["table"], table["flow"], table["partitions"], table["partitions_here"],
    )  # fmt: skip

    for key in (keys[0], keys[-1], keys[len(keys) // 2]):
        status, document = ask(one.port, path_of(key))
        assert (200, rows[key], False) == (status, document["row"], document["stale"])
    assert 404 == ask(one.port, path_of("no such vehicle"))[0]

    assert rows == all_rows(one.port, ("limit", "37")), "pages put together are the table"
    prefix = keys[0][:-1]
    assert {key: rows[key] for key in keys if key.startswith(prefix)} == all_rows(one.port, ("prefix", prefix))
    low, high = keys[10], keys[20]
    assert keys[10:20] == list(all_rows(one.port, ("from", low), ("to", high)))
    fast = {key: row for key, row in rows.items() if (row["speed_max_kmh"] or 0) > 60 and row["events"] >= 5}
    conditions = [("where", "speed_max_kmh>60"), ("where", "events>=5")]
    assert fast == all_rows(one.port, *conditions, ("limit", "10"))
    named = all_rows(one.port, ("columns", "events,device_id"))
    assert {key: {"events": row["events"], "device_id": row["device_id"]} for key, row in rows.items()} == named

    status, document = ask(one.port, f"/tables/{STATE}", ("as_of", "now"))
    assert (400, True) == (status, "as committed" in document["error"])
    for wrong in (("where", "speed>3"), ("where", "events>many"), ("limit", "0"), ("colums", "x"), ("cursor", "?")):
        status, document = ask(one.port, f"/tables/{STATE}", wrong)
        assert (400, True) == (status, bool(document["error"])), wrong
    assert 404 == ask(one.port, "/tables/orders.events.v1")[0]

    request = urllib.request.Request(
        f"http://127.0.0.1:{one.port}/tables/{STATE}?limit=5000",
        headers={"Accept": "application/vnd.apache.arrow.stream"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - our own
        frame = pl.read_ipc_stream(answer.read())
    assert {row["device_id"]: row["events"] for row in rows.values()} == dict(
        zip(frame["device_id"].to_list(), frame["events"].to_list(), strict=True)
    )

    every = sum(map(len, committed_versions(stack).values()))
    start = ",".join(f"{partition}-0" for partition in range(PARTITIONS))
    told = changes_of(one.port, f"/tables/{STATE}/changes", last_id=start, until=every)
    assert every == len(told)
    assert rows == {change["key"]: change["row"] for _, change in told}
    middle = told[every // 2][0]
    rest = [change for _, change in told if not _is_before(change, middle)]
    assert rest == [
        change for _, change in changes_of(one.port, f"/tables/{STATE}/changes", last_id=middle, until=len(rest))
    ]
    the_command_says_the_same(stack, one, rows, tmp_path)
    assert 0 == one.terminate(), one.printed()[-4000:]


def the_command_says_the_same(stack: Stack, worker: Worker, rows: dict[str, dict[str, Any]], directory: Path) -> None:
    key = min(rows)
    asked = run(stack, "query", STATE, key, "--format", "json")
    assert (0, rows[key]) == (asked.returncode, json.loads(asked.stdout)["row"]), asked.stderr
    asked = run(stack, "query", STATE, "--where", "events>=5", "--columns", "device_id,events", "--limit", "100000")
    busy = {key: row for key, row in rows.items() if row["events"] >= 5}
    assert sorted(f"{key} {row['events']}" for key, row in busy.items()) == sorted(
        " ".join(line.split()) for line in asked.stdout.splitlines()[1:]
    )
    asked = run(stack, "query", STATE, "no such vehicle", "--url", f"http://127.0.0.1:{worker.port}")
    assert (1, True) == (asked.returncode, "no row of the key" in asked.stderr)
    for wrong in (["nowhere.v1"], [STATE, key, "--where", "events>1"], [STATE, "--where", "speed"]):
        assert 2 == run(stack, "query", *wrong).returncode, wrong
    file = directory / "rows.arrows"
    command = ForkedProcess(
        ["query", STATE, "--limit", "100000", "--format", "arrow"],
        {**os.environ, **stack.environment()}, stdout=file, stderr=directory / "words",
    )  # fmt: skip
    assert 0 == command.wait(60)
    assert len(rows) == len(pl.read_ipc_stream(file))
    watch = directory / "changes"
    command = ForkedProcess(
        ["query", STATE, "--watch", "--format", "json", "--columns", "events"],
        {**os.environ, **stack.environment()}, stdout=watch,
    )  # fmt: skip
    wait_until(lambda: worker.metric("streams_table_change_readers") == 1, "it follows")
    with Traffic(stack, rough_shape(stack), seed=SEED + 1, records_per_s=1_000) as traffic:
        traffic.wait_for(1_000)
        wait_until(lambda: watch.read_text().count("\n") > 10, "changes are printed")
    assert {"events"} == set(json.loads(watch.read_text().splitlines()[0])["row"])
    command.send_signal(signal.SIGINT)
    assert 130 == command.wait(30)


def _is_before(change: dict[str, Any], event_id: str) -> bool:
    after = dict(part.split("-") for part in event_id.split(","))
    return int(change["offset"]) < int(after[str(change["partition"])])


@pytest.mark.parametrize("step", ["journalled", "offsets_sent"])
def test_what_a_transaction_has_staged_is_not_seen_and_never_was_when_it_is_aborted(
    stack: Stack, one: Worker, step: str
) -> None:
    """The worker stands still in a cycle whose rows are with the broker and not committed; then it is killed."""
    fresh_world(stack)
    one.start(NEVER_IDLE).wait_ready()
    with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=1_500) as traffic:
        traffic.wait_for(3_000)
        assert 0 == one.terminate(), one.printed()[-4000:]
        one.start({**NEVER_IDLE, "STREAMS_FAILPOINT": f"hang:{step}:5"})
        wait_until(lambda: one.said("failpoint reached"), "the cycle stands still")
        time.sleep(1.0)
        before = committed_versions(stack)
        served = all_rows(one.port)
        assert newest(before) == served, "all that is committed, and nothing of the cycle that is not"
        one.kill()
    one.start(NEVER_IDLE).wait_ready()
    wait_until(lambda: all_rows(one.port) != served, "it goes on")
    asking = Asking([one], sorted(served))
    asking.answers += list(all_rows(one.port).items())
    assert [] == never_committed(asking, committed_versions(stack))
    one.kill()


def blows(stack: Stack, pair: list[Worker], keys: list[str], *, rounds: int) -> Asking:
    """Workers are killed and stopped in turn while all are asked."""
    first, second = pair
    with Asking(pair, keys) as asking:
        for number in range(rounds):
            time.sleep(1.0)
            second.kill() if number % 2 else second.terminate()
            time.sleep(1.0)
            second.start(NEVER_IDLE).wait_ready()
            first, second = second, first
        time.sleep(1.0)
    return asking


def judged(stack: Stack, asking: Asking) -> None:
    assert [] == asking.wrong
    assert [] == never_committed(asking, committed_versions(stack))
    assert len([row for _, row in asking.answers if row is not None]) > 100


def test_any_worker_answers_for_the_whole_table_and_only_committed_rows_through_kills(
    stack: Stack, tmp_path: Path
) -> None:
    probe = fresh_world(stack)
    with (
        workers(stack, tmp_path, "a", "b") as pair,
        Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=1_000) as traffic,
    ):
        for worker in pair:
            worker.start(NEVER_IDLE).wait_ready()
        wait_until(lambda: all(worker.partitions() for worker in pair), "both have partitions")
        traffic.wait_for(2_000)
        keys = sorted(committed_versions(stack))
        for worker in pair:
            here = ask(worker.port, "/tables")[1]["tables"][0]["partitions_here"]
            away = [key for key in keys if partition_of(key.encode(), PARTITIONS) not in here]
            assert here
            assert away
            assert 200 == ask(worker.port, path_of(away[0]))[0], "a key of the other worker"
            assert set(keys) <= set(all_rows(worker.port)), "ranges are put together"
        judged(stack, blows(stack, pair, keys, rounds=2))
        assert probe.committed()


@pytest.mark.slow  # in short: the test before
def test_only_committed_rows_are_served_through_twelve_kills_and_handovers(stack: Stack, tmp_path: Path) -> None:
    fresh_world(stack)
    with (
        workers(stack, tmp_path, "a", "b") as pair,
        Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=1_000) as traffic,
    ):
        for worker in pair:
            worker.start(NEVER_IDLE).wait_ready()
        traffic.wait_for(2_000)
        judged(stack, blows(stack, pair, sorted(committed_versions(stack)), rounds=12))


def test_without_the_right_personal_data_is_masked_and_without_a_token_nothing_is_said(
    stack: Stack, one: Worker
) -> None:
    fresh_world(stack)
    tokens = {"STREAMS_REVIEW_TOKEN_READ": "may-read-and-no-more", "STREAMS_ADMIN_TOKEN": "may-do-everything-here"}
    one.start(tokens).wait_ready()
    with Traffic(stack, rough_shape(stack), seed=SEED, records_per_s=1_000) as traffic:
        traffic.wait_for(2_000)
    key = wait_until(lambda: next(iter(committed_versions(stack)), None), "a row is committed")
    assert 401 == ask(one.port, path_of(key))[0]

    def as_somebody(token: str, path: str) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{one.port}{path}", headers={"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - our own
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    row = as_somebody("may-read-and-no-more", path_of(key))[1]["row"]
    assert ("•••", "•••", key) == (row["latitude"], row["longitude"], row["device_id"])
    assert isinstance(as_somebody("may-do-everything-here", path_of(key))[1]["row"]["latitude"], float)
    status, document = as_somebody("may-read-and-no-more", f"/tables/{STATE}?where=latitude%3E0")
    assert (403, True) == (status, "latitude" in document["error"])
    assert 200 == as_somebody("may-do-everything-here", f"/tables/{STATE}?where=latitude%3E0")[0]
    one.kill()
