"""Logging: structlog for our own lines and for those of the libraries, on standard error."""

import logging
import re
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

_REPEAT_S: Final = 60.0
_NUMBERS: Final = re.compile(r"\d+")


class OncePerMinute(logging.Filter):
    """Lets a line of one kind pass once a minute: a client that reconnects says the same many times a second.

    Lines are of one kind when they differ in numbers only.
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


def configure_logging(log_format: str, *, level: int = logging.INFO) -> None:
    """Send all log lines to standard error, human-readable (`console`) or one JSON object a line (`json`)."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
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
                structlog.processors.format_exc_info,
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
