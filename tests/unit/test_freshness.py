from streams import Flow, source
from streams.monitor.freshness import FreshnessTracker, Source
from streams.monitor.sources import sources_of
from streams.settings import Settings

GPS = Source("gps", None, 60.0)
TRUCKS = Source("gps", "trucks", 600.0)


def book() -> FreshnessTracker:
    return FreshnessTracker([GPS, TRUCKS], now_ms=0)


def test_a_source_that_stops_is_silent_after_its_own_threshold() -> None:
    watched = book()
    for each in (GPS, TRUCKS):
        watched.observe(each, arrival_ms=100_000, event_time_ms=95_000)

    fresh = watched.judge(160_000)
    later = watched.judge(160_001)

    assert [False, False] == [one.silent for one in fresh]
    assert [True, False] == [one.silent for one in later]
    assert 100_000 == later[0].silent_since_ms
    assert "silent: the last event came 60 s ago" in later[0].why


def test_ages_are_by_event_time_and_by_arrival() -> None:
    watched = book()
    watched.observe(GPS, arrival_ms=100_000, event_time_ms=40_000)
    watched.observe(GPS, arrival_ms=90_000, event_time_ms=50_000)

    found = watched.judge(105_000)[0]

    assert (55.0, 5.0) == (found.event_age_s, found.arrival_age_s)


def test_recovery_is_noted_with_the_length_of_the_silence() -> None:
    watched = book()
    watched.observe(GPS, arrival_ms=100_000, event_time_ms=None)
    assert watched.judge(300_000)[0].silent
    watched.observe(GPS, arrival_ms=301_000, event_time_ms=None)

    found = watched.judge(302_000)[0]

    assert (False, 302_000, 201.0) == (found.silent, found.recovered_ms, found.silence_s)
    assert "after 3 min of silence" in found.why
    watched.observe(GPS, arrival_ms=1_301_000, event_time_ms=None)
    assert watched.judge(1_302_000)[0].recovered_ms is None


def test_a_source_whose_topic_has_never_held_an_event_waits_for_its_first_one_and_is_never_silent() -> None:
    watched = book()

    for found in watched.judge(86_400_000):
        assert (False, True, "waiting for its first event") == (found.silent, found.waiting, found.why)
    watched.observe(GPS, arrival_ms=86_400_000, event_time_ms=None)
    watched.feed("gps")
    first, trucks = watched.judge(86_400_001)
    assert (False, False) == (first.silent, first.waiting)
    assert (True, False) == (trucks.silent, trucks.waiting), "others of its topic were heard, and it was not"


def test_a_source_that_was_not_heard_since_watching_began_is_silent_once_it_was_watched_for_long_enough() -> None:
    watched = book()
    watched.feed("gps")

    assert not watched.judge(60_000)[0].silent
    found = watched.judge(60_001)[0]
    assert (True, None, None) == (found.silent, found.event_age_s, found.arrival_age_s)


def test_a_producers_clock_that_runs_ahead_hides_no_silence_for_longer_than_it_is_ahead() -> None:
    watched = book()
    watched.observe(GPS, arrival_ms=500_000, event_time_ms=500_000)

    assert 0.0 == watched.judge(100_000)[0].event_age_s
    assert watched.judge(560_001)[0].silent


def test_a_topic_that_another_flow_writes_is_no_source_that_falls_silent() -> None:
    plain = source("doors.v1", key="k").deduplicate().reorder()
    rows = source("doors.v1.clean", key="k", subject="doors.v1-value").deduplicate().reorder()
    doors, alarms = Flow("doors", plain.to("doors.v1.clean")), Flow("alarms", rows.to("alarms.v1"))
    found = sources_of([doors.pipeline, alarms.pipeline], Settings())
    assert ["doors.v1"] == [one.topic for one in found]
    assert ["doors.v1.clean"] == [one.topic for one in sources_of([alarms.pipeline], Settings())]
