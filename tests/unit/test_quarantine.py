import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.limits import KEY_BYTES_MAX
from streams.operators.quarantine import breakers as quarantine
from streams.operators.quarantine.breakers import DeviceBreakers

LIMIT, COOLDOWN_MS = 3, 10_000


def breakers(rejects_max: int = LIMIT) -> DeviceBreakers:
    return DeviceBreakers(rejects_max=rejects_max, cooldown_ms=COOLDOWN_MS)


def reject(subject: DeviceBreakers, *timestamps: int, key: bytes = b"d") -> None:
    for timestamp in timestamps:
        subject.rejected(key, timestamp)


def test_a_device_is_kept_out_once_more_than_the_limit_is_rejected_within_a_minute() -> None:
    subject = breakers()
    reject(subject, 0, 1, 2)
    assert not subject.keeps_out(b"d", 3)
    reject(subject, 3)
    assert subject.keeps_out(b"d", 4)
    assert not subject.keeps_out(b"other", 4)
    assert subject.open_keys == {b"d"}


def test_rejects_a_minute_apart_do_not_add_up() -> None:
    subject = breakers()
    reject(subject, 0, 1, 2, 60_001, 60_002)
    assert subject.open_keys == frozenset()
    reject(subject, 60_003, 60_004)
    assert subject.open_keys == {b"d"}


def test_a_clean_probe_after_the_cooldown_lets_the_device_in_and_forgets_its_past() -> None:
    subject = breakers()
    reject(subject, 0, 1, 2, 3)
    assert subject.keeps_out(b"d", 3 + COOLDOWN_MS - 1)
    assert not subject.keeps_out(b"d", 3 + COOLDOWN_MS)
    subject.accepted(b"d")
    assert subject.open_keys == frozenset()
    reject(subject, 20_000, 20_001, 20_002)
    assert subject.open_keys == frozenset()


def test_a_rejected_probe_keeps_it_out_for_another_cooldown() -> None:
    subject = breakers()
    reject(subject, 0, 1, 2, 3, 3 + COOLDOWN_MS)
    assert subject.keeps_out(b"d", 3 + 2 * COOLDOWN_MS - 1)
    assert not subject.keeps_out(b"d", 3 + 2 * COOLDOWN_MS)


def test_a_clock_that_falls_back_does_not_lock_a_device_out_for_ever() -> None:
    subject = breakers()
    reject(subject, *[10**13] * 4)
    assert subject.keeps_out(b"d", 10**13)
    assert not subject.keeps_out(b"d", 10**12)


def test_clean_records_of_a_device_that_is_not_kept_out_change_nothing() -> None:
    subject = breakers()
    reject(subject, 0, 1, 2)
    subject.take_changed()
    subject.accepted(b"d")
    assert subject.is_settled
    reject(subject, 3)
    assert subject.open_keys == {b"d"}


def test_the_number_of_keys_is_bounded_and_the_longest_unchanged_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "KEYS_MAX", 2)
    subject = breakers()
    for key in (b"a", b"b", b"a", b"c"):
        reject(subject, 0, key=key)
    assert [(key, bool(row)) for key, row in subject.take_changed()] == [(b"a", True), (b"b", False), (b"c", True)]


def test_the_number_of_timestamps_is_bounded_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "TIMES_MAX", 4)
    subject = breakers()
    for key in (b"a", b"b"):
        reject(subject, 0, 1, key=key)
    reject(subject, 2, key=b"b")
    assert list(subject.keys) == [b"b"]
    again = breakers()
    again.restore(subject.take_changed()[1:])
    reject(again, 0, 1, key=b"c")
    assert list(again.keys) == [b"c"]


def test_those_that_may_be_pushed_out_by_a_batch_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "KEYS_MAX", 3)
    subject = breakers()
    for key in (b"a", b"b", b"c"):
        reject(subject, 0, key=key)
    assert frozenset() == subject.may_be_forgotten({b"a", b"b", b"c"}, 10)
    assert {b"a"} == subject.may_be_forgotten({b"x"}, 10)
    assert {b"a", b"b"} == subject.may_be_forgotten({b"x", b"a"}, 10)


def test_a_key_that_is_too_long_for_any_record_opens_no_breaker() -> None:
    subject = breakers()
    reject(subject, *range(10), key=b"d" * (KEY_BYTES_MAX + 1))
    assert ([], 0) == (list(subject.keys), subject.bytes_used)


def test_memory_grows_with_keys_their_length_and_their_rejects() -> None:
    subject = breakers(100)
    reject(subject, *range(100), key=b"d" * 1_000)
    assert 2_000 < subject.bytes_used < 3_000


def test_breakers_that_are_journalled_again_are_as_they_were() -> None:
    subject = breakers()
    reject(subject, 0, 1, key=b"a")
    reject(subject, 0, key=b"b")
    before = dict(subject.take_changed())
    subject.journal_again([b"a"])
    assert not subject.is_settled
    assert [(b"a", before[b"a"])] == subject.take_changed()
    assert list(subject.keys) == [b"a", b"b"]


def test_garbage_is_not_a_breaker() -> None:
    with pytest.raises(ValueError, match="not a breaker"):
        breakers().restore([(b"d", b"x")])


STEPS = st.lists(
    st.tuples(st.sampled_from((b"a", b"b", b"c", b"d")), st.booleans(), st.integers(0, 30_000)), max_size=60
)


@given(STEPS, st.data())
def test_restored_anywhere_it_goes_on_as_if_nothing_had_happened(
    steps: list[tuple[bytes, bool, int]], data: st.DataObject
) -> None:
    straight, broken, rows = breakers(1), breakers(1), {}
    for key, bad, timestamp in steps:
        for subject in (straight, broken):
            if subject.keeps_out(key, timestamp):
                continue
            if bad:
                subject.rejected(key, timestamp)
            else:
                subject.accepted(key)
        assert straight.open_keys == broken.open_keys
        if data.draw(st.booleans()):
            rows |= dict(broken.take_changed())
            rows = {key: row for key, row in rows.items() if row}
            broken = breakers(1)
            broken.restore(rows.items())
