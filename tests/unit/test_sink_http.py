"""An endpoint as a target: what is sent, what answers mean. A real server on this machine; no broker."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from streams.masking import PERSONAL_MASK
from streams.sinks.http.target import SAMPLE, HttpTarget
from streams.sinks.postgres.refusal import words
from streams.sinks.target import RowsRefused, TakenOver, TargetBatch, TargetUnavailable
from tests.endpoint import Endpoint


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.close()


def none_committed(partitions: Collection[int]) -> Mapping[int, int]:
    return dict.fromkeys(partitions, -1)


def target_of(endpoint: Endpoint, **changed: Any) -> HttpTarget:
    given = {"sink": "hook", "topic": "t", "committed": none_committed, "key": ["id"], "rows_max": 50, **changed}
    made = HttpTarget(endpoint.url, **given)
    made.open([0])
    return made


def batch(count: int, *, deleted: Collection[str] = ()) -> TargetBatch:
    rows = pa.RecordBatch.from_pydict({"id": [f"r{n}" for n in range(count)], "speed": [float("nan")] * count})
    return TargetBatch(
        rows=rows,
        partition=np.zeros(count, dtype=np.int64),
        offset=np.arange(count, dtype=np.int64),
        offsets={0: count + len(deleted)},
        deleted=tuple(deleted),
        deleted_partition=np.zeros(len(deleted), dtype=np.int64),
        deleted_offset=np.arange(count, count + len(deleted), dtype=np.int64),
    )


def test_changes_come_in_order_with_ids_in_requests_of_bounded_size(endpoint: Endpoint) -> None:
    target = target_of(endpoint, token=lambda: "s3cret", headers={"X-Team": "ops"})
    target.write(batch(120, deleted=["r7"]))
    assert [len(rows) for _, rows in endpoint.requests] == [50, 50, 21]
    assert endpoint.taken[0] == {"id": "hook:t-0@0", "op": "upsert", "row": {"id": "r0", "speed": "nan"}}
    assert endpoint.taken[-1] == {"id": "hook:t-0@120", "op": "delete", "row": {"id": "r7"}}
    headers = endpoint.requests[0][0]
    assert (headers["Authorization"], headers["X-Team"]) == ("Bearer s3cret", "ops")
    assert len({found["Idempotency-Key"] for found, _ in endpoint.requests}) == 3
    assert target.positions([0]) == {0: 121}
    target.close()


def test_the_same_changes_have_the_same_key_whoever_sends_them(endpoint: Endpoint) -> None:
    for _ in range(2):
        target = target_of(endpoint)
        target.write(batch(10))
        target.close()
    first, second = (headers["Idempotency-Key"] for headers, _ in endpoint.requests)
    assert first == second


def test_one_row_that_is_refused_costs_itself_and_nothing_is_sent_twice(endpoint: Endpoint) -> None:
    endpoint.refused = {"r33"}
    target = target_of(endpoint)
    with pytest.raises(RowsRefused) as told:
        target.write(batch(100))
    assert list(told.value.rows) == [(0, 33)]
    assert "answers 400: no: hook:t-0@33" in told.value.rows[0, 33]
    assert "secret" not in told.value.rows[0, 33]
    endpoint.refused = set()
    rest = batch(100)
    keep = np.delete(np.arange(100), 33)
    target.write(TargetBatch(rest.rows.take(pa.array(keep)), rest.partition[keep], rest.offset[keep], {0: 100}))
    ids = [row["id"] for row in endpoint.taken]
    assert len(ids) == len(set(ids)) == 99
    target.close()


def test_an_endpoint_that_refuses_every_row_is_an_outage(endpoint: Endpoint) -> None:
    endpoint.refused = {f"r{number}" for number in range(50)}
    target = target_of(endpoint)
    with pytest.raises(TargetUnavailable, match=f"every one of {SAMPLE} rows"):
        target.write(batch(50))
    target.close()


@pytest.mark.parametrize(
    ("status", "asked"), [(500, None), (503, "7"), (429, "3"), (401, None), (404, None), (302, None)]
)
def test_an_endpoint_at_fault_is_an_outage_and_gets_all_rows_later(
    endpoint: Endpoint, status: int, asked: str | None
) -> None:
    endpoint.status = status
    endpoint.headers = {} if asked is None else {"Retry-After": asked}
    target = target_of(endpoint)
    with pytest.raises(TargetUnavailable, match=str(status)) as told:
        target.write(batch(10))
    assert told.value.retry_in_s == (None if asked is None else float(asked))
    assert target.positions([0]) == {0: -1}
    endpoint.status = 200
    target.write(batch(10))
    assert len(endpoint.taken) == 10
    target.close()


def test_nobody_there_is_an_outage(endpoint: Endpoint) -> None:
    target = target_of(endpoint)
    endpoint.close()
    with pytest.raises(TargetUnavailable, match="no answer"):
        target.write(batch(1))
    target.close()


def test_requests_keep_to_the_rate(endpoint: Endpoint) -> None:
    now, slept = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        now[0] += seconds

    target = target_of(endpoint, rows_max=10, rate=4.0, monotonic_s=lambda: now[0], sleep=sleep)
    target.write(batch(40))
    assert slept == [0.25, 0.25, 0.25]
    target.close()


def test_a_partition_that_is_not_held_is_not_sent(endpoint: Endpoint) -> None:
    target = target_of(endpoint)
    target.release([0])
    with pytest.raises(TakenOver):
        target.write(batch(1))
    assert not endpoint.requests
    target.close()


def test_of_rows_with_personal_data_only_the_status_of_an_answer_is_told(endpoint: Endpoint) -> None:
    endpoint.refused = {"r33"}
    target = target_of(endpoint, masks_words=True)
    with pytest.raises(RowsRefused) as told:
        target.write(batch(100))
    assert told.value.rows[0, 33].endswith(f"answers 400: {PERSONAL_MASK}")
    target.close()


def test_of_rows_with_personal_data_a_database_is_not_quoted() -> None:
    error = psycopg.errors.InvalidTextRepresentation('invalid input syntax for type integer: "anna"')
    assert words(error, masks_values=True) == f"InvalidTextRepresentation (22P02): {PERSONAL_MASK}"
    assert "anna" in words(error)
    gone = psycopg.OperationalError("connection to server at 127.0.0.1 failed")
    assert words(gone, masks_values=True) == "connection to server at 127.0.0.1 failed"
