"""Records of some keys are kept back and come again, all of them, with the time at which they are sent."""

from typing import Any

import numpy as np
import pytest

from loadtest.fleet import TrafficBatch
from loadtest.generator.holding import Hold, Holding


def batch(*names: str, at_ms: int) -> TrafficBatch:
    keys: list[bytes | None] = [name.encode() for name in names]
    values = [f"{name}@{at_ms}".encode() for name in names]
    return TrafficBatch(keys, values, [at_ms] * len(names), np.arange(len(names), dtype=np.int8))


def test_records_of_held_keys_come_back_in_order_or_the_newest_first() -> None:
    said: list[dict[str, Any]] = []
    holding = Holding(said.append)
    holding.begin(Hold.parse('{"hold": {"endings": ["7"], "newest_first": ["07"], "seconds": 10}}'))

    sent = [holding.pass_on(batch("a-07", "a-17", "a-08", at_ms=at), at) for at in (1_000, 2_000, 10_999)]
    back = holding.pass_on(batch("a-07", "a-08", at_ms=11_000), 11_000)

    assert [[b"a-08"]] * 3 == [one.keys for one in sent]
    assert back.values == [
        b"a-17@1000", b"a-17@2000", b"a-17@10999", b"a-07@10999", b"a-07@2000", b"a-07@1000", b"a-07@11000",
        b"a-08@11000",
    ]  # fmt: skip
    assert back.timestamps_ms == [11_000] * 8
    assert back.kinds.tolist() == [1, 1, 1, 0, 0, 0, 0, 1]
    assert said == [{"hold": "began"}, {"hold": "ended", "records": 6, "keys": 2}]
    assert holding.was_used


def test_without_a_hold_everything_passes_and_at_the_end_nothing_is_kept() -> None:
    holding = Holding(lambda _: None)
    given = batch("a-7", at_ms=5)
    assert holding.pass_on(given, 5) is given
    assert holding.rest(6) is None

    holding.begin(Hold((b"7",), (), 10.0))
    assert len(holding.pass_on(given, 5)) == 0
    rest = holding.rest(9)
    assert rest is not None
    assert (rest.values, rest.timestamps_ms) == (given.values, [9])


@pytest.mark.parametrize(
    "line",
    [
        "x", "[]", "{}", '{"hold": {"endings": [], "seconds": 1}}', '{"hold": {"endings": [""], "seconds": 1}}',
        '{"hold": {"endings": ["7"]}}', '{"hold": {"endings": ["7"], "seconds": 0}}',
        '{"hold": {"endings": ["7"], "seconds": 301}}', '{"hold": {"endings": [7], "seconds": 1}}',
    ],
)  # fmt: skip
def test_what_is_no_command_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Hold.parse(line)
