"""Processes of the local stack: which one is ours."""

from pathlib import Path

import psutil
import pytest

from streams.local.processes import ManagedProcess, stop_all


def test_a_child_whose_command_line_still_reads_empty_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexec sleep 60\n")
    java.chmod(0o755)
    process = ManagedProcess("sleeper", tmp_path)
    process.rotate_log()
    pid = process.start(java, [])
    try:
        # As the kernel shows it for a moment behind exec: seen in 2 of 300 starts.
        monkeypatch.setattr(psutil.Process, "cmdline", lambda _: [])
        found = process.find()
        assert found is not None
        assert pid == found.pid
    finally:
        stop_all([process])
    assert not psutil.pid_exists(pid)
