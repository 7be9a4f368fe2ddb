"""The manifest of a snapshot: which objects it consists of, and whose state it is. Pure."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from streams.state.checkpoint import FORMAT as STATE_FORMAT
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Places

FORMAT: Final = 1
"""Version of the format of manifests."""
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class ManifestUnreadable(ValueError):
    """The bytes are not a manifest of this version, or not those that were written."""


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A file of the store."""

    name: str
    """Name of the file in the store's folder."""
    bytes: int
    sha256: str
    """SHA-256 of its content, and the name of the object."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot of the store of one partition."""

    flow: str
    """Name of the flow, with the prefix of its topics."""
    partition: int
    cluster: str
    """Id of the Kafka cluster."""
    topics: Mapping[str, str]
    """Id by name of the flow's topics: what the state belongs to."""
    journal: str
    """Name of the journal's topic."""
    epoch: int
    """Epoch of the layout of partitions."""
    layout: str
    """Fingerprint of the layouts of all rows."""
    state_format: int
    """`streams.state.checkpoint.FORMAT` of the store."""
    cycle: int
    """The commit cycle that the store ends with."""
    offset_next: int
    journal_next: int
    replay_from: int
    """Offset in the journal from which a restore reads it."""
    created_ms: int
    """When the snapshot was taken, by the clock of the worker."""
    worker: str
    version: str
    """Version of the product that wrote it."""
    files: tuple[SnapshotFile, ...]
    format: int = FORMAT

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def journal_id(self) -> str:
        """Id of the journal's topic."""
        return self.topics.get(self.journal, "")

    def pack(self) -> bytes:
        """Return the manifest as the bytes of its object."""
        return json.dumps(asdict(self), indent=1).encode()

    @staticmethod
    def unpack(name: str, data: bytes) -> "Manifest":
        """Inverse of `pack`, of the object with this name (`name_of`).

        Raises:
            ManifestUnreadable: it is another content than was written under this name, or of another format.

        """
        if name.rpartition("/")[2].partition(".")[0].partition("-")[2] != hashlib.sha256(data).hexdigest():
            raise ManifestUnreadable("its content is not what was written under its name")
        try:
            found: Any = json.loads(data)
            if found["format"] != FORMAT:
                raise ManifestUnreadable(f"its format is {found['format']}, this version reads {FORMAT}")
            return Manifest(**{**found, "files": tuple(_file(**one) for one in found["files"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ManifestUnreadable(f"not a manifest: {error}") from None

    def misfit(self, places: Places, changelogs: Collection[str], partition: int) -> str:
        """Why it must not be used for a partition of a flow whose topics are at `places`; empty: it may be tried.

        `changelogs` are the topics that bring it forward. What else its identity means is judged when it is restored,
        as it is of any local state.
        """
        if self.state_format != STATE_FORMAT:
            return f"its state format is {self.state_format}, this version reads {STATE_FORMAT}"
        if self.partition != partition:
            return f"it is of partition {self.partition}"
        if self.cluster != places.cluster:
            return f"it is of the cluster {self.cluster}, this one is {places.cluster}"
        for topic in sorted(changelogs):
            known, now = self.topics.get(topic, ""), places.topics.get(topic, "")
            if known and known != now:
                return f"it is of an earlier topic {topic}"
        return ""


def _file(name: str, bytes: int, sha256: str) -> SnapshotFile:  # noqa: A002 - as in the document
    """A file whose name stays in its folder, and whose object is one of ours."""
    if not _FILE_NAME.fullmatch(name) or not _SHA256.fullmatch(sha256) or bytes < 0:
        raise ManifestUnreadable(f"{name!r} is no name of a file of a store")
    return SnapshotFile(name, bytes, sha256)


def name_of(manifest: Manifest, packed: bytes) -> str:
    """Name of the object of a manifest in the folder of manifests: by cycle, then by content."""
    return f"{manifest.cycle:016d}-{hashlib.sha256(packed).hexdigest()}.json"


def manifest_of(
    checkpoint: Checkpoint,
    files: tuple[SnapshotFile, ...],
    *,
    flow: str,
    journal: str,
    partition: int,
    created_ms: int,
    worker: str,
    version: str,
) -> Manifest:
    """Manifest of a store that ends with `checkpoint`."""
    identity = checkpoint.identity
    layout = json.dumps({name: rows.as_json() for name, rows in sorted(identity.rows.items())})
    return Manifest(
        flow=flow,
        partition=partition,
        cluster=identity.cluster,
        topics=dict(identity.topics),
        journal=journal,
        epoch=identity.epoch,
        layout=hashlib.sha256(layout.encode()).hexdigest()[:16],
        state_format=checkpoint.format,
        cycle=checkpoint.cycle,
        offset_next=checkpoint.offset_next,
        journal_next=checkpoint.journal_next,
        replay_from=checkpoint.replay_from,
        created_ms=created_ms,
        worker=worker,
        version=version,
        files=files,
    )
