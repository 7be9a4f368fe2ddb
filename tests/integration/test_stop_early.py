"""SIGTERM at any moment of a worker's start ends it in order."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streams.early import TERMINATED
from streams.local import ports
from streams.local.stack import Stack
from tests.integration.workers import SETTINGS, fresh_world, wait_until

pytestmark = pytest.mark.kafka


def run_and_stop(stack: Stack, directory: Path, after_s: float, **environment: str) -> subprocess.CompletedProcess[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "streams", "worker", "--data-dir", str(directory), "--web-port", "0"],
        env={**os.environ, **stack.environment(), **SETTINGS, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # Its first bytecode is ours when the file is mapped that it imports first; Python itself is still -15.
    wait_until(lambda: "SigCgt" in status(process.pid) and handles_sigterm(process.pid), "it handles SIGTERM")
    time.sleep(after_s)
    process.terminate()
    out, _ = process.communicate(timeout=90)
    return subprocess.CompletedProcess(process.args, process.returncode, out)


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def handles_sigterm(pid: int) -> bool:
    caught = next(line.split()[1] for line in status(pid).splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc whether SIGTERM is handled yet")
@pytest.mark.parametrize(
    "moments", [(0.0, 1.0, 2.0, 3.0), pytest.param((0.3, 0.7, 1.3, 1.6, 2.4, 2.8, 3.4, 4.0), marks=pytest.mark.slow)]
)
def test_a_worker_may_be_stopped_at_any_moment_of_its_start(
    stack: Stack, tmp_path: Path, moments: tuple[float, ...]
) -> None:
    fresh_world(stack)
    for number, after_s in enumerate(moments):
        done = run_and_stop(stack, tmp_path / str(number), after_s)
        assert done.returncode in {0, TERMINATED}, (after_s, done.returncode, done.stdout[-2000:])
        assert "Traceback" not in done.stdout, (after_s, done.stdout[-3000:])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="as above")
def test_a_worker_that_waits_for_its_broker_may_be_stopped(stack: Stack, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{ports.free_port()}"
    done = run_and_stop(stack, tmp_path, 2.5, KAFKA_BOOTSTRAP_SERVERS=nowhere)
    assert done.returncode == TERMINATED, done.stdout[-2000:]
