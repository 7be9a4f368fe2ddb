"""Takes back a draft: a registered version that is not locked and that no record uses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streams.errors import StreamsError
from streams.schemas.catalog import Catalog
from streams.schemas.client import RegisteredVersion, Registry, same_schema
from streams.schemas.gate.findings import versions_in_words
from streams.schemas.lock import LOCK_FILE, Lock, digest


@dataclass(frozen=True, slots=True)
class Draft:
    """A registered version that is not locked."""

    subject: str
    registered: RegisteredVersion
    files: tuple[int, ...]
    """Committed versions with the same schema; empty: it is in no file."""

    @property
    def in_words(self) -> str:
        """The draft's version, id and file."""
        where = f"the file of {versions_in_words(self.files)}" if self.files else "in no file"
        return f"{self.subject} version {self.registered.version} (id {self.registered.schema_id}, {where})"


@dataclass(frozen=True, slots=True)
class Use:
    """Records found with a schema id."""

    topics: tuple[str, ...]
    """Topics that were searched."""
    records: int
    """Records that were read."""
    found: Mapping[str, int]
    """Records with the id, by topic; topics without any are left out."""
    gaps: tuple[str, ...] = ()
    """Why some records may not have been read; empty: all were."""

    @property
    def in_words(self) -> str:
        """How much was read, in words."""
        if not self.topics:
            return "no topic was looked at" if self.gaps else "there is no topic of this subject"
        topics = f"{len(self.topics)} topic{'s' if len(self.topics) > 1 else ''}"
        return f"{self.records:,} record{'' if self.records == 1 else 's'} of {topics} looked at"


def draft_of(catalog: Catalog, lock: Lock, registry: Registry, subject: str, version: int | None) -> Draft:
    """The registered version to be taken back: `version` as the registry numbers it, by default the newest.

    Raises:
        StreamsError: it is not registered, or it is locked: a committed version stays for ever.
        RegistryUnavailable: no usable answer.

    """
    held = registry.registered(subject)
    chosen = next((each for each in reversed(held) if version is None or each.version == version), None)
    if chosen is None:
        what = subject if version is None or not held else f"{subject} version {version}"
        there = f": it has {versions_in_words(each.version for each in held)}" if held else ""
        raise StreamsError(f"{what} is not in the registry at {registry.url_shown}{there}")
    locked = sorted(number for (name, number), said in lock.items() if name == subject and said == _digest(chosen))
    if locked:
        raise StreamsError(
            f"{subject} version {chosen.version} is locked ({LOCK_FILE} has it as {versions_in_words(locked)}): "
            "a committed version stays registered; put the change into the next version"
        )
    committed = catalog.versions(subject) if subject in catalog.subjects() else ()
    return Draft(subject, chosen, tuple(each.version for each in committed if same_schema(each.text, chosen.text)))


def topics_of(subject: str, declared: Sequence[str], existing: Sequence[str]) -> list[str]:
    """Topics of a cluster that may hold records of a subject's versions.

    `declared` are the topics whose values are the subject's. Other sets of topics, which differ by a prefix, share
    the subject; a source's events go on, byte by byte, into what stands beside it.
    """
    names = set(declared) or {subject.removesuffix("-value")}
    wanted = tuple(name + suffix for name in sorted(names) for suffix in ("", ".clean", ".late", ".dlq"))
    return sorted(topic for topic in existing if topic.endswith(wanted))


def why_not(draft: Draft, use: Use, *, forced: bool) -> str | None:
    """Why a draft is not taken back; None when it is. `forced`: also if it may be in use."""
    if use.found:
        where = ", ".join(f"{topic} ({count:,})" for topic, count in sorted(use.found.items()))
        instead = (
            "lock it (`streams schemas lock`) and put the change into the next version"
            if draft.files
            else "commit it as a file, so that the gate judges what comes after it"
        )
        what = f"{draft.in_words} is in use: records in {where} carry its id"
        return f"{what}, and could not be read without it; {instead}"
    unsure = [*use.gaps]
    if not draft.files:
        unsure.append("it is in no file here: somebody else may have registered it")
    if unsure and not forced:
        return (
            f"{draft.in_words}: cannot tell whether it is unused: {'; '.join(unsure)}; --yes takes it back all the same"
        )
    return None


def take_back(registry: Registry, draft: Draft) -> None:
    """Delete a draft from its subject (a soft delete), and read back that it is gone.

    Raises:
        SchemaRefused: the registry does not let it go, such as a version that another schema refers to.
        StreamsError: it is still there afterwards.
        RegistryUnavailable: no usable answer.

    """
    version = draft.registered.version
    registry.delete_version(draft.subject, version)
    if version in registry.versions(draft.subject):
        raise StreamsError(f"{draft.in_words}: the registry says it is deleted, and still has it")


def _digest(registered: RegisteredVersion) -> str | None:
    """Digest of a registered version as in the lock; None for one that is not JSON."""
    try:
        return digest(registered.text)
    except ValueError:
        return None
