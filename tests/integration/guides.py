"""Guides, followed: a copy of the project in which the files they show are written and the commands run."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastavro

from streams.avro.resolve import without_logical_types
from streams.local.stack import Stack
from tests.integration.forked import run_forked
from tests.integration.kafka_helpers import Record

ROOT = Path(__file__).parents[2]


def copied(to: Path) -> Path:
    """The project as it is when a guide begins."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("streams", "logistics", "schemas"):
        shutil.copytree(ROOT / name, to / name, symlinks=True, ignore=ignored)
    return to


def environment_of(copy: Path, stack: Stack) -> Mapping[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(copy),
        "KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": stack.registry_url,
        "STREAMS_IDLE_MS": "300",
    }


def decoded(copy: Path, topic: str, record: Record) -> dict[str, Any]:
    schema = json.loads((copy / "schemas" / f"{topic}-value" / "1.avsc").read_text(encoding="utf-8"))
    plain = fastavro.parse_schema(without_logical_types(schema))
    row = fastavro.schemaless_reader(io.BytesIO(record.value[5:]), plain, None)
    assert isinstance(row, dict)
    return row


def command(line: str) -> list[str]:
    name, *arguments = line.split()
    assert name == "streams"
    return [sys.executable, "-m", "streams", *arguments]


def run(copy: Path, environment: Mapping[str, str], line: str, *, status: int = 0) -> str:
    """What a line prints; a copy of the product itself is run from nothing."""
    words = command(line)
    if environment["PYTHONPATH"] == str(ROOT):
        done = run_forked(words[3:], environment, directory=copy)
    else:
        done = subprocess.run(
            words, cwd=copy, env=dict(environment), capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def working(copy: Path, environment: Mapping[str, str], line: str) -> Iterator[None]:
    """The worker that a line starts; it must stop cleanly."""
    process = subprocess.Popen(command(line), cwd=copy, env=dict(environment), stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
