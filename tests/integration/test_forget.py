"""`streams forget` on a real Kafka, of a flow that is stopped and of one that runs: the key begins anew."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from logistics.flows.gps import GPS
from streams.kafka.partitioner import partition_of
from streams.local.stack import Stack
from streams.worker.rebuild import members_of
from tests.integration.kafka_helpers import admin_of, decoded_value, run
from tests.integration.test_rejects import Encoder, Sent, produce
from tests.integration.workers import PARTITIONS, Worker, fresh_world, read, wait_drained, wait_until, workers

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

KEY, OTHER = "car-to-forget", "car-to-keep"
TABLE = "vehicles.state.v1"


def rows(stack: Stack, key: str) -> list[dict[str, Any] | None]:
    """Rows of a key in the table, in order; None: a record without a value."""
    found: list[dict[str, Any] | None] = []
    for message in read(stack, TABLE):
        value: Any = message.value()
        if message.key() == key.encode():
            found.append(None if value is None else decoded_value(value, f"{TABLE}-value"))
    return found


def send(stack: Stack, encoder: Encoder, key: str, *, latitude: float = 52.5) -> None:
    value = encoder.framed(device_id=key, latitude=latitude, event_time=int(time.time() * 1000))
    produce(stack, [Sent(key, value, key=key.encode())])


def events_of(stack: Stack, key: str) -> int:
    last = next(iter(reversed(rows(stack, key))), None)
    return 0 if last is None else int(last["events"])


@pytest.mark.parametrize("workers_run", [False, True], ids=["stopped", "running"])
def test_a_forgotten_key_begins_anew_and_its_dead_letters_are_discarded(
    stack: Stack, tmp_path: Path, *, workers_run: bool
) -> None:
    probe, encoder = fresh_world(stack), Encoder(stack)
    with workers(stack, tmp_path, "a") as (worker,):
        worker.start().wait_ready()
        for key in (KEY, OTHER, KEY):
            send(stack, encoder, key)
        send(stack, encoder, KEY, latitude=91.0)
        wait_until(lambda: events_of(stack, KEY) == 2 and events_of(stack, OTHER) == 1, "both have rows")
        wait_drained(probe, worker)
        if not workers_run:
            assert worker.terminate() == 0
            wait_until(lambda: not members_of(admin_of(stack), GPS), "the group has no members")

        seen = run(stack, "forget", KEY, "--flow", "gps", "--dry-run", "--format", "json")
        assert seen.returncode == 0, seen.stderr
        assert rows(stack, KEY)[-1] is not None, "a dry run changes nothing"
        done = run(stack, "forget", KEY, "--flow", "gps", "--why", "request 4711", "--format", "json")
        assert done.returncode == 0, done.stderr + worker.printed()[-3000:]
        found = json.loads(done.stdout)
        assert found == {**json.loads(seen.stdout), "dry_run": False}
        assert (found["dead_letters"], found["partition"]) == (1, partition_of(KEY.encode(), PARTITIONS))
        assert found["workers"] == ("running" if workers_run else "stopped")
        assert TABLE in found["rows"]
        assert {one["topic"] for one in found["stays"]} == {GPS.forget, *(topic.name for topic in GPS.topics())}
        assert KEY not in done.stderr + json.dumps(found) + worker.printed()
        assert rows(stack, KEY)[-1] is None
        audit = [json.loads(message.value() or b"") for message in read(stack, GPS.audit)]
        assert [one["why"] for one in audit if one.get("resolution") == "forgotten"] == ["request 4711"]
        assert not [one for one in audit if KEY in json.dumps(one)]
        if not workers_run:
            worker.start()
        goes_on(stack, worker.wait_ready(), encoder)


def goes_on(stack: Stack, worker: Worker, encoder: Encoder) -> None:
    """With the store from before, and after a crash: the key has what came since, the other one all."""
    for key in (KEY, OTHER):
        send(stack, encoder, key)
    wait_until(lambda: events_of(stack, OTHER) == 2 and events_of(stack, KEY) == 1, "the key begins anew")
    worker.kill()
    worker.start().wait_ready()
    send(stack, encoder, KEY)
    wait_until(lambda: events_of(stack, KEY) == 2, "it goes on from there")
    assert worker.terminate() == 0
