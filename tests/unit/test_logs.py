"""Log lines."""

import io
import logging
import sys
from collections.abc import Callable

import pytest
import structlog

from streams.errors import StreamsError
from streams.logs import OncePerMinute, configure_logging


def fail(error: Exception) -> None:
    raise error


def line(text: str) -> logging.LogRecord:
    return logging.LogRecord("librdkafka", logging.ERROR, "", 0, text, None, None)


def test_lines_that_differ_in_numbers_only_are_said_once_a_minute() -> None:
    now = [0.0]
    once = OncePerMinute(lambda: now[0])
    assert once.filter(line("connect failed after 3ms"))
    assert not once.filter(line("connect failed after 17ms"))
    assert once.filter(line("something else"))
    now[0] = 61.0
    assert once.filter(line("connect failed after 5ms"))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """What was logged to standard error, in the console format."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("console")
    return stream.getvalue


def test_nothing_that_is_logged_for_a_terminal_acts_on_it(logged: Callable[[], str]) -> None:
    evil = "\x1b]0;owned\x07\x9b2J\u202e\nforged"
    structlog.get_logger("ours").warning(f"topic {evil}", key=evil, several=[evil])
    logging.getLogger("librdkafka").error("group %s", evil)
    try:
        fail(ValueError(evil))
    except ValueError:
        logging.getLogger("mode").exception("Crashed")
    lines = logged().split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("forged") for line in lines[:2])


def test_a_traceback_is_logged_once_however_many_log_the_error(logged: Callable[[], str]) -> None:
    try:
        fail(KeyError("field"))
    except KeyError as error:
        structlog.get_logger("ours").error("stopping after an unexpected error", exc_info=error)
        logging.getLogger("mode").exception("Crashed")
        logging.getLogger("asyncio").exception("never retrieved")
    said = logged()
    assert 1 == said.count("Traceback")
    assert "never retrieved" in said
    assert "error=\"'field'\"" in said


def test_an_error_that_says_what_to_do_needs_no_traceback(logged: Callable[[], str]) -> None:
    try:
        fail(StreamsError("run `streams topics apply`"))
    except StreamsError:
        logging.getLogger("mode").exception("Crashed")
    said = logged()
    assert "Traceback" not in said
    assert "run `streams topics apply`" in said
