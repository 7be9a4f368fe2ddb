"""Tracebacks of a process that handles personal data: what happened and where, without values that a message may quote.

Python's own errors quote what they were given (`could not convert string to float: 'Anna'`), and so may those of a
user's code. Where they come from is in the lines of the traceback.
"""

import sys
import threading
import traceback
from collections.abc import Iterator, MutableMapping
from types import TracebackType
from typing import Any, Final

from confluent_kafka import KafkaException

from streams.errors import StreamsError
from streams.masking import PERSONAL_MASK

TELLS_NO_VALUE: Final = (
    StreamsError, OSError, KafkaException, MemoryError, ImportError, NameError, AttributeError, NotImplementedError,
    AssertionError, SystemError, RecursionError,
)  # fmt: skip
"""Errors whose messages are about a place, a service or the code. Of a `RuntimeError` that holds for its own type only:
it is the one that this product raises at faults of its own."""
_CHAIN_MAX: Final = 10


def words_of(error: BaseException) -> str:
    """Type and message of an error, the message masked if it may quote a value."""
    name = type(error).__qualname__
    text = str(error)
    if not text:
        return name
    is_shown = isinstance(error, TELLS_NO_VALUE) or type(error) is RuntimeError
    return f"{name}: {text if is_shown else PERSONAL_MASK}"


def formatted(error: BaseException) -> str:
    """The traceback of an error and of its causes, the first one first, as Python prints it but for masked messages."""
    return "\n".join(reversed(list(_parts(error)))).rstrip("\n")


def _parts(error: BaseException) -> Iterator[str]:
    found: BaseException | None = error
    for _ in range(_CHAIN_MAX):
        if found is None:
            return
        lines = "".join(traceback.format_tb(found.__traceback__))
        grouped = "".join(f"\n  | {words_of(one)}" for one in getattr(found, "exceptions", ()))
        yield f"Traceback (most recent call last):\n{lines}{words_of(found)}{grouped}\n"
        cause = found.__cause__
        if cause is None and not found.__suppress_context__:
            cause = found.__context__
            between = "During handling of the above exception, another exception occurred:"
        else:
            between = "The above exception was the direct cause of the following exception:"
        if cause is not None:
            yield f"{between}\n"
        found = cause


def masked_exceptions(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put the masked traceback into an event of the log, as `format_exc_info` of structlog does with a plain one."""
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException):
        event["exception"] = formatted(error)
    return event


def mask_what_ends_the_process() -> None:
    """Make the interpreter print masked tracebacks too, for errors that end the process or a thread."""

    def hook(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
        if not isinstance(error, KeyboardInterrupt):
            print(formatted(error), file=sys.stderr)  # noqa: T201 - what the interpreter would do

    def thread_hook(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None and not isinstance(arguments.exc_value, SystemExit):
            print(formatted(arguments.exc_value), file=sys.stderr)  # noqa: T201 - as above

    sys.excepthook = hook
    threading.excepthook = thread_hook
