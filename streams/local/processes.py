"""Background processes that outlive the command that starts them, and that later commands find again.

A process is known by its pid *and* a random token on its command line, both in a file under `run/`: a recycled pid
never carries the token, so no stranger is ever signalled. (The start time, the usual second mark, moves with clocks.)
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from streams.errors import StreamsError

STOP_GRACE_S = 20.0
"""How long a process may take to stop by itself before it is killed."""
KILL_WAIT_S = 10.0
LOG_TAIL_BYTES = 65_536
ENVIRONMENT_KEPT = ("HOME", "PATH", "TZ", "USER")
"""Nothing else of the caller's environment reaches the process: no variables meant for another Java or registry."""


@dataclass(frozen=True)
class ManagedProcess:
    """One named background process of one directory; at most one runs at a time.

    Files: `run/<name>.json` while it runs, `logs/<name>.log` of its latest run, `logs/<name>.log.1` of the run before.
    """

    name: str
    directory: Path

    @property
    def log(self) -> Path:
        """Everything the process prints."""
        return self.directory / "logs" / f"{self.name}.log"

    @property
    def _pid_file(self) -> Path:
        return self.directory / "run" / f"{self.name}.json"

    def find(self) -> psutil.Process | None:
        """Find the running process; None if it was never started, was stopped, or died."""
        try:
            record = json.loads(self._pid_file.read_text(encoding="utf-8"))
            process = psutil.Process(int(record["pid"]))
            child = _CHILDREN.get(process.pid)
            if child is not None:  # ours: just after the start its command line may still read empty
                return process if child.poll() is None else None
            return process if any(record["token"] in argument for argument in process.cmdline()) else None
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None  # no or no whole record, or a process that is gone, a zombie or somebody else's

    def listens_on(self, port: int) -> bool:
        """Whether it is this process that takes connections on the port, and not another one."""
        process = self.find()
        if process is None:
            return False
        try:
            connections = process.net_connections(kind="tcp")
        except psutil.Error:
            return False  # it has just ended
        return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)

    @property
    def has_crashed(self) -> bool:
        """Whether it was started, was not stopped, and yet does not run."""
        return self._pid_file.exists() and self.find() is None

    def rotate_log(self) -> None:
        """Keep the log of the run before, start a new one."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))
        self.log.touch()

    def run(self, command: Sequence[str | Path], timeout_s: float) -> int:
        """Run a command of the same kind to its end, its output in the log; return its exit status."""
        child: subprocess.Popen[bytes] | None = None
        try:
            with _uninterrupted():
                child = self._spawn(command)
            return child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            if child is not None:
                child.kill()
                child.wait()

    def start(self, java: Path, arguments: Sequence[str]) -> int:
        """Start the process in a session of its own (Ctrl-C does not reach it) and return its pid."""
        token = secrets.token_hex(16)
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        with _uninterrupted():
            child = self._spawn([java, f"-Dstreams.local.{self.name}={token}", *arguments])
            _CHILDREN[child.pid] = child
            unfinished = self._pid_file.with_suffix(".new")
            unfinished.write_text(json.dumps({"pid": child.pid, "token": token}), encoding="utf-8")
            unfinished.replace(self._pid_file)
        return child.pid

    def forget(self) -> None:
        """Remove the record of a process that no longer runs."""
        self._pid_file.unlink(missing_ok=True)

    def last_words(self) -> str:
        """Pick the line of the log that most likely tells why the process ended."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - LOG_TAIL_BYTES))
                lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        except OSError:
            return "it printed nothing"
        telling = [line for line in lines if "Caused by" in line or "Exception:" in line or " ERROR " in line]
        return (telling or lines or ["it printed nothing"])[-1][:300]

    def _spawn(self, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        try:
            with self.log.open("ab") as log:
                return subprocess.Popen(
                    command,
                    cwd=self.directory,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise StreamsError(f"cannot start {command[0]}: {error}") from None


_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
"""Started by this very process, so to be reaped by it."""


def stop_all(processes: Iterable[ManagedProcess], how: signal.Signals = signal.SIGTERM) -> list[str]:
    """Stop the processes together: ask, wait, then kill. On return none of them runs; those that ran are named.

    An exception (a second Ctrl-C) during the wait kills at once: nothing is left behind either way.
    """
    processes = list(processes)
    running = {process.name: found for process in processes if (found := process.find()) is not None}
    try:
        for found in running.values():
            _signal(found, how)
        psutil.wait_procs(running.values(), timeout=STOP_GRACE_S)
    finally:
        left = [found for found in running.values() if found.is_running()]
        for found in left:
            _signal(found, signal.SIGKILL)
        psutil.wait_procs(left, timeout=KILL_WAIT_S)
        for found in running.values():
            child = _CHILDREN.pop(found.pid, None)
            if child is not None:
                child.wait(timeout=KILL_WAIT_S)
        for process in processes:
            if process.find() is None:
                process.forget()
    return list(running)


def _signal(process: psutil.Process, how: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile, which is what was wanted
        process.send_signal(how)


@contextlib.contextmanager
def _uninterrupted() -> Generator[None]:
    """Hold Ctrl-C and SIGTERM back for a moment: between the birth of a process and its being known to us.

    Handlers rather than a blocked mask: the child would inherit the mask, and then never hear SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    received: list[int] = []
    before = {how: signal.getsignal(how) for how in (signal.SIGINT, signal.SIGTERM)}
    try:
        for how in before:
            signal.signal(how, lambda number, _: received.append(number))
        yield
    finally:
        for how, handler in before.items():
            signal.signal(how, signal.SIG_DFL if handler is None else handler)
        for number in received[:1]:
            signal.raise_signal(number)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ENVIRONMENT_KEPT if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8"}  # Java reads file names by it
