"""Logging: structlog for our own lines and those of the libraries, on standard error."""

import logging
import re
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog

from streams.errors import StreamsError
from streams.text import printable, printable_lines
from streams.tracebacks import mask_what_ends_the_process, masked_exceptions, words_of

_REPEAT_S: Final = 60.0
_NUMBERS: Final = re.compile(r"\d+")


class OncePerMinute(logging.Filter):
    """Passes a line of one kind once a minute: a client that reconnects repeats the same many times a second.

    Lines that differ only in numbers are of one kind.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is shown."""
        kind = _NUMBERS.sub("#", record.getMessage())
        now = self._clock()
        if now - self._said_at.get(kind, -_REPEAT_S) < _REPEAT_S:
            return False
        if len(self._said_at) > 1_000:
            self._said_at.clear()
        self._said_at[kind] = now
        return True


_Event = MutableMapping[str, Any]
_TRACEBACK_SHOWN: Final = "_streams_traceback_shown"


def traceback_once(_: Any, __: str, event: _Event) -> _Event:
    """Drop a traceback that was logged before, or whose error already says what to do.

    An exception that ends a worker passes several that log it: whoever caught it first, its service, the event loop.
    """
    error = _exception_of(event.get("exc_info"))
    if error is None:
        return event
    if isinstance(error, StreamsError) or hasattr(error, _TRACEBACK_SHOWN):
        del event["exc_info"]
        event.setdefault("error", str(error) or type(error).__name__)
    else:
        setattr(error, _TRACEBACK_SHOWN, True)
    return event


def masked_traceback_once(name: Any, method: str, event: _Event) -> _Event:
    """As `traceback_once`, in a process that handles personal data."""
    error = _exception_of(event.get("exc_info"))
    if error is not None and not isinstance(error, StreamsError) and hasattr(error, _TRACEBACK_SHOWN):
        event.setdefault("error", words_of(error))
    return traceback_once(name, method, event)


def harmless(_: Any, __: str, event: _Event) -> _Event:
    """Make every text of an event safe for a terminal: keys and names of topics come from whoever can write to one."""
    for name, value in event.items():
        if name in {"exception", "stack"}:
            event[name] = printable_lines(value)
        elif isinstance(value, str):
            event[name] = printable(value)
    return event


class OfProcess:
    """Adds the number of the process to each line, where there are several."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __call__(self, _: Any, __: str, event: _Event) -> _Event:
        """Add the number, unless the line is about another process."""
        event.setdefault("process", self._number)
        return event


def configure_logging(
    log_format: str, *, level: int = logging.INFO, process: int | None = None, masks_values: bool = False
) -> None:
    """Send all log lines to standard error, human-readable (`console`) or one JSON object a line (`json`).

    `process`: number of this process among those of one worker; None: it is the only one. `masks_values`: whether the
    process handles personal data, so that messages of errors that may quote values are masked (`streams.tracebacks`).
    """
    if masks_values:
        mask_what_ends_the_process()
    shared: list[Any] = [
        *([] if process is None else [OfProcess(process)]),
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    of_errors: list[Any] = (
        [masked_traceback_once, masked_exceptions]
        if masks_values
        else [traceback_once, structlog.processors.format_exc_info]
    )
    for_a_terminal = [] if log_format == "json" else [harmless]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *of_errors,
                *for_a_terminal,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("librdkafka").filters[:] = [OncePerMinute()]
    for noisy in ("faust", "mode", "aiohttp.access", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))


def _exception_of(exc_info: Any) -> BaseException | None:
    """The exception that `exc_info` of a log line means, in any of its forms."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return _exception_of(exc_info[1])
    return sys.exception() if exc_info else None
