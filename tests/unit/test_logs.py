"""Log lines."""

import logging

from streams.logs import OncePerMinute


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
