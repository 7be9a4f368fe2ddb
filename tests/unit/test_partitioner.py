import random

import pytest

from streams.batch.key_hash import murmur2, murmur2_all
from streams.kafka.partitioner import partition_of

# Signed values, from UtilsTest of Apache Kafka's Java client.
JAVA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "signed"), JAVA_VECTORS.items())
def test_murmur2_equals_the_java_client_on_its_own_vectors(key: bytes, signed: int) -> None:
    assert signed & 0x7FFFFFFF == murmur2(key)


@pytest.mark.parametrize("length", range(13))
def test_every_tail_length_hashes_to_31_bits_and_depends_on_its_last_byte(length: int) -> None:
    key = bytes(range(length))
    assert 0 <= murmur2(key) < 2**31
    assert murmur2(key + b"\xff") != murmur2(key + b"\xfe")


def test_growing_from_3_to_12_moves_keys_only_between_congruent_partitions() -> None:
    for number in range(1000):
        key = b"device-%d" % number
        assert partition_of(key, 3) == partition_of(key, 12) % 3


def test_many_keys_at_once_have_the_hashes_that_they_have_one_by_one() -> None:
    rng = random.Random(1)
    keys = [rng.randbytes(rng.choice((0, 1, 2, 3, 4, 5, 8, 11, 16, 17, 1_024))) for _ in range(2_000)]
    assert murmur2_all(keys).tolist() == [murmur2(key) for key in keys]
    assert murmur2_all([]).tolist() == []
