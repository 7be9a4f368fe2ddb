"""The local Kafka's parts that need no Kafka."""

from streams.local.kafka import new_cluster_id


def test_a_cluster_id_never_looks_like_an_option() -> None:
    drawn = iter([b"\xfb" + bytes(15), b"\x00" * 16])
    assert new_cluster_id(lambda: next(drawn)) == "A" * 22
