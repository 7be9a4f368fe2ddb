"""How a command ends: its exit status, and one line on standard error for whatever a user can cause."""

import contextlib
import errno
import io
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import typer

from streams.cli.help import Group
from streams.cli.output import echo_lines
from streams.errors import StreamsError, UsageError
from streams.interrupts import ALWAYS, Interrupts
from streams.text import printable

INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, by the shell's convention."""
READER_GONE: Final = 141
"""Exit status when the reader of the output has ended (`streams dlq list | head`), by the shell's convention."""
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ADVICE: Final = {
    errno.ENOSPC: "free some, then run it again",
    errno.EDQUOT: "free some, then run it again",
    errno.EROFS: "choose a place that can be written to",
    errno.EACCES: "this user may not do that",
    errno.EPERM: "this user may not do that",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class CommandGroup(Group):
    """The top of the command line; a reader of the output that has gone ends the command without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            if _reader_has_gone():
                raise typer.Exit(READER_GONE) from None
            raise StreamsError("a connection or another program ended while something was sent to it") from None


def run(app: Callable[[], object], arguments: Iterable[str]) -> int:
    """Run a command line and return its exit status.

    `StreamsError`, an error of the operating system (no space left on a device, no permission) and an argument that is
    not UTF-8 are one line on standard error. Any other exception is a fault of this program, and is raised.
    """
    _print_anything()
    with Interrupts((signal.SIGINT,), raised_max=ALWAYS) as interrupts:
        status = _end_of(app, arguments, interrupts)
    _give_up_on_what_cannot_be_written()
    return INTERRUPTED if interrupts.requested else status


def _end_of(app: Callable[[], object], arguments: Iterable[str], interrupts: Interrupts) -> int:
    try:
        status = _status_of(app, arguments)
        sys.stdout.flush()
    except SystemError:
        if not interrupts.requested:
            raise
        status = INTERRUPTED
    except StreamsError as error:
        status = error.exit_status
        _say(str(error))
    except KeyboardInterrupt:
        status = INTERRUPTED
    except UnicodeEncodeError as error:
        if not _has_surrogates(str(error.object)):
            raise
        status = UsageError.exit_status
        _say(f"not UTF-8: {printable(error.object)}")
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            status = READER_GONE
        else:
            status = StreamsError.exit_status
            _say(_in_words(error))
    return status


def _status_of(app: Callable[[], object], arguments: Iterable[str]) -> int:
    _refuse_what_is_not_utf8(arguments)
    try:
        app()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        raise
    return 0


def _refuse_what_is_not_utf8(arguments: Iterable[str]) -> None:
    """Names in Kafka are UTF-8; the name of a file may be any bytes."""
    for argument in arguments:
        if _has_surrogates(argument) and not any(map(_is_file, (argument, argument.partition("=")[2]))):
            raise UsageError(f"an argument is not UTF-8: {printable(argument)}")


def _is_file(path: str) -> bool:
    return bool(path) and Path(path).exists()


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _in_words(error: OSError) -> str:
    what = error.strerror or str(error) or type(error).__name__
    if error.filename is None and error.errno in _DISK_FULL:  # what was open already: output, or a file that is written
        return f"the output cannot be written: {what}"
    where = f"{printable(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
    advice = _ADVICE.get(error.errno or 0)
    return f"{where}{what}{f': {advice}' if advice else ''}"


def _say(text: str) -> None:
    """Print the line; its destination may be closed or full."""
    if text:
        with contextlib.suppress(OSError):
            echo_lines(f"streams: {text}", err=True)


def _print_anything() -> None:
    """Have standard output and error show what they cannot encode: a broken file name, or a locale without UTF-8.

    One that is closed (`>&-`) is there for nobody: what is printed goes nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _reader_has_gone() -> bool:
    """Whether standard output or error is a pipe that nobody reads any more."""
    found = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # not a file, as in tests
            found.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in found.poll(0))


def _give_up_on_what_cannot_be_written() -> None:
    """Leave nothing for the interpreter to write at its end: it would print a traceback."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
