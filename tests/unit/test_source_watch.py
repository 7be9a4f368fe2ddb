"""What is noticed of a source that is created again, and when."""

from typing import Any

from streams.worker.source_watch import SourceWatch


class _Places:
    """Names the topic's id as the broker would."""

    def id_of(self, topic: str) -> str | None:
        return "another"


def watch_of(known: frozenset[str]) -> SourceWatch:
    places: Any = _Places()
    return SourceWatch(places, "t", lambda: known)


def test_a_source_that_was_created_again_is_told() -> None:
    watch = watch_of(frozenset({"one"}))
    assert watch.look(0.0, is_suspect=False) is None
    assert watch._asked is not None
    watch._asked.result(5)

    assert "the source topic t was deleted and created again" == watch.look(0.1, is_suspect=False)
    watch.close()


def test_a_worker_that_stops_may_look_once_more_and_asks_nothing() -> None:
    watch = watch_of(frozenset({"one"}))
    watch.close()

    assert watch.look(0.0, is_suspect=True) is None
