"""The monitor's count of dead letters."""

from streams.deadletters.letter.figures import Figures
from streams.errors import StreamsError
from streams.monitor.dead_letters import DeadLetterWatch
from streams.monitor.snapshot import DeadLetters

WINDOW_S = 100.0


class Letters:
    """Counts that a test sets."""

    def __init__(self) -> None:
        self.count, self.open, self.fails = 0, 0, False

    def figures(self) -> list[Figures]:
        if self.fails:
            raise StreamsError("no broker")
        return [Figures("t.dlq", {"malformed": self.count, "invalid": 1}, {"malformed": self.open}, None)]


def watch_of(letters: Letters) -> DeadLetterWatch:
    return DeadLetterWatch(letters.figures, interval_s=1.0, window_s=WINDOW_S)


def test_letters_of_all_reasons_are_counted_and_growth_is_that_of_the_window() -> None:
    letters = Letters()
    watch = watch_of(letters)
    letters.count, letters.open = 5, 2
    watch.look(1_000.0)
    letters.count = 9
    watch.look(1_060.0)

    assert (DeadLetters("t.dlq", letters=10, open=2, grown=4, grown_s=60.0),) == watch.rows

    watch.look(1_150.0)
    assert (0, 90.0) == (watch.rows[0].grown, watch.rows[0].grown_s)


def test_letters_that_retention_deletes_are_no_growth() -> None:
    letters = Letters()
    watch = watch_of(letters)
    letters.count = 50
    watch.look(0.0)
    letters.count = 10
    watch.look(5.0)

    assert (11, 0) == (watch.rows[0].letters, watch.rows[0].grown)


def test_what_cannot_be_counted_now_keeps_its_last_count() -> None:
    letters = Letters()
    watch = watch_of(letters)
    watch.look(0.0)
    counted = watch.rows
    letters.fails = True
    watch.look(5.0)

    assert counted
    assert counted == watch.rows


def test_before_the_first_count_nothing_is_claimed() -> None:
    assert () == watch_of(Letters()).rows
