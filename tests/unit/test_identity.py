import uuid

import numpy as np
import pyarrow as pa
import pytest

from streams.operators.columns import objects
from streams.operators.identity import EVENT_TIME_MAX, event_time_of, id_words, mix, time_word


def words(*texts, times=None):
    """Identities of ids as decode makes them from an Arrow column."""
    column = pa.array(texts, pa.string())
    offsets = np.frombuffer(column.buffers()[1], np.int32)[: len(texts) + 1].astype(np.int64)
    data = np.frombuffer(column.buffers()[2], np.uint8)
    hi, lo, digest = id_words(data, offsets, objects([text.encode() for text in texts]))
    time = np.zeros(len(texts), np.int64) if times is None else np.array(times)
    word = time_word(time, digest)
    return list(zip(hi.tolist(), lo.tolist(), word.tolist(), strict=True))


CANONICAL = "0123e567-e89b-12d3-a456-42661417abcd"


def test_a_canonical_uuid_is_its_own_16_bytes():
    [(hi, lo, word)] = words(CANONICAL)
    assert hi << 64 | lo == uuid.UUID(CANONICAL).int
    assert word == 1


@pytest.mark.parametrize(
    "other",
    [
        CANONICAL.upper(),
        CANONICAL.replace("a", "A"),
        "{" + CANONICAL + "}",
        CANONICAL.replace("-", ""),
        "urn:uuid:" + CANONICAL,
        CANONICAL.replace("-", "_"),
        CANONICAL[:-1] + "g",
        CANONICAL[:-1] + "-",
        "0123e5678e89b-12d3-a456-42661417abcd",
        CANONICAL[:-1] + "/",
        CANONICAL[:-1] + ":",
        " " + CANONICAL[1:],
        "é" + CANONICAL[2:],
        CANONICAL + " ",
        "x",
    ],
)
def test_any_other_text_is_another_identity(other):
    one, two = words(CANONICAL, other)
    assert one != two
    assert words(other)[0][2] == 2, "a digest"


def test_the_words_do_not_depend_on_what_stands_beside():
    texts = [CANONICAL, "x", "", str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1)), "é" * 18, "y" * 36, "z" * 128]
    together = words(*texts)
    assert together == [words(text)[0] for text in texts]
    assert len(set(together)) == len(texts)


def test_all_uuids_and_no_uuids_take_the_same_way():
    texts = [str(uuid.UUID(int=i << 60)) for i in range(50)]
    assert words(*texts) == [words(text, "x")[0] for text in texts]


def test_a_slice_of_a_column_is_read_from_its_offset():
    column = pa.array(["skipped", CANONICAL, CANONICAL], pa.string()).slice(1)
    offsets = np.frombuffer(column.buffers()[1], np.int32)[1:4].astype(np.int64)
    data = np.frombuffer(column.buffers()[2], np.uint8)
    hi, lo, digest = id_words(data, offsets, objects([CANONICAL.encode()] * 2))
    assert not digest.any()
    assert [h << 64 | low for h, low in zip(hi.tolist(), lo.tolist(), strict=True)] == [uuid.UUID(CANONICAL).int] * 2


def test_no_ids_are_no_words():
    hi, lo, digest = id_words(np.empty(0, np.uint8), np.zeros(1, np.int64), objects([]))
    assert (len(hi), len(lo), len(digest)) == (0, 0, 0)


def test_uuids_sort_by_their_words_as_by_their_text():
    rng = np.random.default_rng(3)
    texts = [str(uuid.UUID(bytes=rng.bytes(16))) for _ in range(500)]
    by_words = [text for _, text in sorted(zip(words(*texts), texts, strict=True))]
    assert by_words == sorted(texts)


@pytest.mark.parametrize("time", [0, 1, 1_700_000_000_000, EVENT_TIME_MAX])
def test_the_third_word_holds_the_event_time_and_is_never_zero(time):
    for text in (CANONICAL, "x"):
        [(_, _, word)] = words(text, times=[time])
        assert word != 0
        assert event_time_of(np.array([word], np.uint64)).tolist() == [time]


def test_one_id_at_two_times_is_two_identities():
    assert len(set(words("x", "x", CANONICAL, CANONICAL, times=[1, 2, 1, 2]))) == 4


def test_the_hash_spreads_in_its_top_bits_whatever_differs():
    count = 1 << 12
    counting, zero = np.arange(1, count + 1, dtype=np.uint64), np.zeros(count, np.uint64)
    for columns in ((counting, zero, zero), (zero, counting, zero), (zero, zero, counting)):
        top = mix(*columns) >> np.uint64(52)
        assert len(np.unique(top)) > 0.55 * count  # random: 1 - 1/e
    assert not np.array_equal(mix(counting, zero, zero, 1), mix(counting, zero, zero, 2))
