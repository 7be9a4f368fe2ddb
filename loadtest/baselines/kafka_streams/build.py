"""The Java program as class files: its libraries by the resolver of the local stack, compiled once for each source.

It runs on the Java that the local stack runs on. That has no `javac`: where none is installed, the Eclipse compiler
(one jar, locked like the rest) compiles.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pydantic import BaseModel, ConfigDict

from streams.errors import StreamsError
from streams.local.artifacts import Component, cache_directory, fetch_all, java
from streams.local.progress import Progress

LOCK: Final = Path(__file__).with_name("artifacts.lock.json")
SOURCES: Final = Path(__file__).with_name("java")
MAIN: Final = "baseline.GpsBaseline"
RELEASE: Final = "17"
COMPILE_S_MAX: Final = 300


class KafkaStreamsLock(BaseModel):
    """The committed lock file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: Component
    compiler: Component


def load_lock() -> KafkaStreamsLock:
    """Read the lock file."""
    return KafkaStreamsLock.model_validate_json(LOCK.read_bytes())


def built(progress: Progress) -> list[Path]:
    """The program's class path: its classes, compiled as needed, and its libraries, downloaded as needed.

    Raises:
        StreamsError: a file cannot be had, or the sources do not compile; the message has what the compiler said.

    """
    lock = load_lock()
    libraries = fetch_all(f"Kafka Streams {lock.program.version}", lock.program, progress)
    sources = sorted(SOURCES.glob("*.java"))
    digest = hashlib.sha256(LOCK.read_bytes() + b"".join(source.read_bytes() for source in sources)).hexdigest()
    classes = cache_directory() / "baselines" / f"kafka-streams-{digest[:32]}"
    if not classes.is_dir():
        progress.step("compiling the Kafka Streams baseline")
        classes.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=classes.parent, prefix=".compile-") as staging:
            target = Path(staging) / "classes"
            compile_java(sources, libraries, target, compiler_command(lock, progress))
            if not classes.is_dir():  # another process may have been faster
                target.rename(classes)
    return [classes, *libraries]


def compiler_command(lock: KafkaStreamsLock, progress: Progress) -> list[str]:
    """`javac` of an installed JDK, else the Eclipse compiler on the local stack's Java."""
    home = os.environ.get("JAVA_HOME", "")
    javac = shutil.which("javac") or (shutil.which("javac", path=f"{home}/bin") if home else None)
    return [javac, "--release", RELEASE] if javac is not None else eclipse_compiler(lock, progress)


def eclipse_compiler(lock: KafkaStreamsLock, progress: Progress) -> list[str]:
    """The Eclipse compiler on the local stack's Java, whose runtime has no signatures of earlier releases."""
    (jar,) = fetch_all(f"the Eclipse compiler {lock.compiler.version}", lock.compiler, progress)
    return [str(java()), "-jar", str(jar), "-source", RELEASE, "-target", RELEASE, "-proc:none"]


def compile_java(sources: list[Path], libraries: list[Path], target: Path, compiler: list[str]) -> None:
    """Compile the sources into a folder.

    Raises:
        StreamsError: they do not compile.

    """
    class_path = os.pathsep.join(map(str, libraries))
    options = ["-encoding", "UTF-8", "-nowarn", "-cp", class_path, "-d", str(target)]
    done = subprocess.run(
        [*compiler, *options, *map(str, sources)],
        capture_output=True,
        text=True,
        timeout=COMPILE_S_MAX,
        check=False,
    )
    if done.returncode != 0:
        raise StreamsError(f"{compiler[0]} does not compile {SOURCES}: {(done.stderr + done.stdout).strip()[-2000:]}")
