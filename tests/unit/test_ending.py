"""How commands end: the real command line, in a process of its own, with real pipes, disks and signals."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from streams.cli.ending import INTERRUPTED, READER_GONE, run
from streams.errors import FencedError, FoundSomething, StreamsError
from tests.left_out import REQUIRE_VARIABLE

pytestmark = pytest.mark.thorough

NOBODY = "127.0.0.1:1"
FULL = "/dev/full"


def command(
    *arguments: str | bytes, stdout: int | IO[bytes] = subprocess.PIPE, **environment: str
) -> subprocess.Popen[bytes]:
    """A started `streams` command; the variable of the tests, which it would name as no setting, is not there."""
    kept = {name: value for name, value in os.environ.items() if name != REQUIRE_VARIABLE}
    return subprocess.Popen(
        [sys.executable, "-m", "streams", *arguments],
        stdout=stdout, stderr=subprocess.PIPE, env={**kept, **environment},
    )  # fmt: skip


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Exit status and what it said on standard error."""
    said = process.communicate(timeout=60)[1].decode()
    return process.returncode, said


def test_a_reader_that_ends_early_ends_the_command_without_a_word() -> None:
    process = command("settings")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) in {0, READER_GONE}  # 0: all was in the pipe before it was closed
    assert b"" == process.stderr.read()
    process = command("settings", "--format", "json", stdout=broken_pipe())
    assert (READER_GONE, "") == ended(process)


def broken_pipe() -> IO[bytes]:
    """The writing end of a pipe whose reader is gone."""
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "wb")


@pytest.mark.skipif(not os.path.exists(FULL), reason="no /dev/full here")  # noqa: PTH110 - a device
@pytest.mark.parametrize("arguments", [("settings",), ("--version",), ("schemas", "lint", "--format", "json")])
def test_a_full_disk_is_one_line(arguments: tuple[str, ...]) -> None:
    with open(FULL, "wb") as full:  # noqa: PTH123 - a device
        status, said = ended(command(*arguments, stdout=full))
    assert (1, "streams: the output cannot be written: No space left on device\n") == (status, said)


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_output_is_no_fault(closed: int) -> None:
    shell = f'exec "$0" -m streams settings {closed}>&-'
    found = subprocess.run(["sh", "-c", shell, sys.executable], capture_output=True, timeout=120, check=False)
    assert (0, b"") == (found.returncode, found.stdout if closed == 1 else found.stderr)
    assert b"Traceback" not in found.stderr


@pytest.mark.parametrize("arguments", [(b"lag", b"--group", b"caf\xe9"), (b"schemas", b"diff", b"\xff"), (b"\xe9",)])
def test_an_argument_that_is_not_utf8_is_one_line(arguments: tuple[bytes, ...]) -> None:
    status, said = ended(command(*arguments, KAFKA_BOOTSTRAP_SERVERS=NOBODY))
    assert 2 == status
    assert re.fullmatch(r"streams: an argument is not UTF-8: (caf)?\\udc[ef][9f]\n", said)


def test_the_name_of_a_file_may_be_any_bytes(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.csv"
    with open(path, "wb") as file:  # noqa: PTH123 - bytes
        file.write(b"x\n")
    status, said = ended(
        command(b"ingest", b"file", path, b"--topic", b"no.such.topic", KAFKA_BOOTSTRAP_SERVERS=NOBODY)
    )
    assert status in {1, 2}
    assert "Traceback" not in said
    assert "not UTF-8" not in said


def test_ctrl_c_ends_a_waiting_command_without_a_word() -> None:
    process = command("lag", KAFKA_BOOTSTRAP_SERVERS=NOBODY)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    status, said = ended(process)
    assert INTERRUPTED == status
    assert "Traceback" not in said


@pytest.mark.parametrize("afterwards", [None, SystemError("returned a result with an exception set")])
def test_ctrl_c_that_a_callback_of_c_code_swallows_still_ends_the_command_as_interrupted(
    afterwards: Exception | None,
) -> None:
    def command_that_swallows() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if afterwards is not None:
            raise afterwards

    assert INTERRUPTED == run(command_that_swallows, [])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_no_message_reaches_a_terminal_raw() -> None:
    status, said = ended(command("schemas", "diff", "\x1b]0;owned\x07\x9b2J"))
    assert 2 == status
    assert "\\x1b]0;owned\\x07\\x9b2J" in said
    assert all(line.isprintable() for line in said.split("\n"))


def test_unknown_variables_are_named_beside_the_settings() -> None:
    process = command("settings", "--format", "json", STREAMS_LATENES_MS="7")
    status, said = ended(process)
    assert 0 == status
    assert "streams: STREAMS_LATENES_MS is no setting and is ignored; did you mean STREAMS_LATENESS_MS?\n" in said


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (StreamsError("do\x1b[2J this"), 1, "streams: do\\x1b[2J this\n"),
        (FencedError("fenced"), 3, "streams: fenced\n"),
        (FoundSomething(), 100, ""),
        (PermissionError(13, "No", "/a\nb"), 1, "streams: /a\\x0ab: No: this user may not do that\n"),
        (OSError(28, "No space", "/a"), 1, "streams: /a: No space: free some, then run it again\n"),
        (OSError("odd"), 1, "streams: odd\n"),
        (BrokenPipeError(32, "Broken pipe"), 1, "streams: Broken pipe\n"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(7), 7, ""),
        (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"), 2, "streams: not UTF-8: a\\udcff\n"),
    ],
)  # fmt: skip
def test_what_a_user_can_cause_is_one_line_and_its_exit_status(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, said: str
) -> None:
    def failing() -> None:
        raise error

    assert status == run(failing, [])
    assert said == capsys.readouterr().err


def test_a_fault_of_the_program_is_not_hidden() -> None:
    def faulty() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(faulty, [])


@pytest.mark.parametrize("name", ["json.py", "logging.py", "streams.py"])
def test_a_file_in_the_working_directory_is_not_taken_for_a_module(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("raise SystemExit(77)")
    child = "from streams.kafka.offsets_process import OffsetProbe\nfrom streams.settings import load_settings\n"
    child += "probe = OffsetProbe(load_settings())\nprocess = probe._running()\n"
    child += "process.stdin.close()\nprint(process.wait(60))"
    found = subprocess.run(
        [sys.executable, "-P", "-c", child],
        cwd=tmp_path,
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": NOBODY},
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert "0" == found.stdout.strip()
