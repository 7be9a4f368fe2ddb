"""Which groups belong to versions of flows that are kept and that nobody is to run: no lag of theirs is a fault."""

from collections.abc import Iterator, Sequence

import structlog

from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.round import Round
from streams.kafka.versions_topic import VersionsTopic
from streams.settings import Settings
from streams.versions.record import Versions

log = structlog.get_logger(__name__)


def idle_versions(versions: Versions) -> Iterator[str]:
    """Versions of a flow that workers do not run: not the current one, nor one that is being made or goes to take over.

    The declared version is the empty text.
    """
    current = versions.current
    finished = (record.version for record in versions.made.values() if record.is_finished)
    at_work = {current.version, current.going_to}
    yield from (version for version in dict.fromkeys(("", *finished)) if version not in at_work)


class KeptVersions:
    """Groups of kept versions of some flows, read again when a versions topic has a new end. `close` when done."""

    def __init__(self, settings: Settings, flows: Sequence[Pipeline]) -> None:
        """Nothing connects before a flow has versions."""
        self._settings = settings
        self._flows = {flow.versions: flow for flow in flows}
        self._topics: dict[str, VersionsTopic] = {}
        self._ends: dict[str, int] = {}
        """End up to which each topic was read last."""
        self._groups: dict[str, frozenset[str]] = {}

    def look(self, found: Round) -> frozenset[str]:
        """The groups of versions that are kept. What cannot be read now stays as it was."""
        for name, flow in self._flows.items():
            if name not in found.base:
                self._groups.pop(name, None)
                continue
            end = int(found.end[found.base[name]])
            if end <= 0 or self._ends.get(name) == end:
                continue
            topic = self._topics.setdefault(name, VersionsTopic(self._settings, flow))
            try:
                versions = topic.read()
            except StreamsError as error:
                log.warning("which version of a flow runs cannot be read", topic=name, error=str(error))
                continue
            self._groups[name] = frozenset(flow.as_version(version).group for version in idle_versions(versions))
            self._ends[name] = end
        return frozenset().union(*self._groups.values())

    def close(self) -> None:
        """Let go of the connections."""
        for topic in self._topics.values():
            topic.close()
