import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.operators import quarantine
from streams.operators.quarantine import DeviceBreakers

LIMIT, COOLDOWN_MS = 3, 10_000


def breakers(rejects_max=LIMIT):
    return DeviceBreakers(rejects_max=rejects_max, cooldown_ms=COOLDOWN_MS)


def reject(subject, *timestamps, key=b"d"):
    for timestamp in timestamps:
        subject.rejected(key, timestamp)


def test_a_device_is_kept_out_once_more_than_the_limit_is_rejected_within_a_minute():
    subject = breakers()
    reject(subject, 0, 1, 2)
    assert not subject.keeps_out(b"d", 3)
    reject(subject, 3)
    assert subject.keeps_out(b"d", 4)
    assert not subject.keeps_out(b"other", 4)
    assert subject.open_keys == {b"d"}


def test_rejects_a_minute_apart_do_not_add_up():
    subject = breakers()
    reject(subject, 0, 1, 2, 60_001, 60_002)
    assert subject.open_keys == frozenset()
    reject(subject, 60_003, 60_004)
    assert subject.open_keys == {b"d"}


def test_a_clean_probe_after_the_cooldown_lets_the_device_in_and_forgets_its_past():
    subject = breakers()
    reject(subject, 0, 1, 2, 3)
    assert subject.keeps_out(b"d", 3 + COOLDOWN_MS - 1)
    assert not subject.keeps_out(b"d", 3 + COOLDOWN_MS)
    subject.accepted(b"d")
    assert subject.open_keys == frozenset()
    reject(subject, 20_000, 20_001, 20_002)
    assert subject.open_keys == frozenset()


def test_a_rejected_probe_keeps_it_out_for_another_cooldown():
    subject = breakers()
    reject(subject, 0, 1, 2, 3, 3 + COOLDOWN_MS)
    assert subject.keeps_out(b"d", 3 + 2 * COOLDOWN_MS - 1)
    assert not subject.keeps_out(b"d", 3 + 2 * COOLDOWN_MS)


def test_a_clock_that_falls_back_does_not_lock_a_device_out_for_ever():
    subject = breakers()
    reject(subject, *[10**13] * 4)
    assert subject.keeps_out(b"d", 10**13)
    assert not subject.keeps_out(b"d", 10**12)


def test_clean_records_of_a_device_that_is_not_kept_out_change_nothing():
    subject = breakers()
    reject(subject, 0, 1, 2)
    subject.take_changed()
    subject.accepted(b"d")
    assert subject.is_settled
    reject(subject, 3)
    assert subject.open_keys == {b"d"}


def test_the_number_of_keys_is_bounded_and_the_longest_unchanged_goes(monkeypatch):
    monkeypatch.setattr(quarantine, "KEYS_MAX", 2)
    subject = breakers()
    for key in (b"a", b"b", b"a", b"c"):
        reject(subject, 0, key=key)
    assert [(key, bool(row)) for key, row in subject.take_changed()] == [(b"a", True), (b"b", False), (b"c", True)]


def test_garbage_is_not_a_breaker():
    with pytest.raises(ValueError, match="not a breaker"):
        breakers().restore([(b"d", b"x")])


STEPS = st.lists(
    st.tuples(st.sampled_from((b"a", b"b", b"c", b"d")), st.booleans(), st.integers(0, 30_000)), max_size=60
)


@given(STEPS, st.data())
def test_restored_anywhere_it_goes_on_as_if_nothing_had_happened(steps, data):
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
