"""Reads the versions topic of a flow: which versions there are, and which one is current."""

from collections.abc import Collection, Iterable

from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.control_topic import READ_TIMEOUT_S, ControlTopic
from streams.settings import Settings
from streams.versions.record import VersionLogError, Versions, read_versions


class VersionsTopic(ControlTopic):
    """Reads one versions topic. Any thread. If the topic does not exist, there is only the declared version."""

    def __init__(self, settings: Settings, flow: Pipeline) -> None:
        """Prepare to read the topic of `flow`; a connection is made by the first read."""
        super().__init__(
            settings, flow.versions, client="streams-versions", group=flow.group, what="the version that runs goes on"
        )

    def read(self, timeout_s: float = READ_TIMEOUT_S) -> Versions:
        """Read the topic, and return the versions.

        Raises:
            StreamsError: no answer; or the topic holds something else.

        """
        self.refresh(timeout_s)
        try:
            return read_versions(self.log())
        except VersionLogError as error:
            raise StreamsError(f"{self._topic}: {error}") from None


def versions_of(settings: Settings, flow: Pipeline) -> Versions:
    """The versions of a flow from its versions topic, read once; raises as `VersionsTopic.read`."""
    reader = VersionsTopic(settings, flow)
    try:
        return reader.read()
    finally:
        reader.close()


def topics_of_current(settings: Settings, declared: Iterable[Pipeline], *, there: Collection[str]) -> dict[str, str]:
    """Topic of the current version by declared output, for a flow that runs in another version.

    `there`: topics of the cluster. Raises as `VersionsTopic.read`.
    """
    found: dict[str, str] = {}
    for flow in declared:
        if flow.versions in there and (version := versions_of(settings, flow).current.version):
            current = flow.as_version(version)
            beside = {one.dlq: now.dlq for one, now in zip(flow.inputs, current.inputs, strict=True)}
            found |= dict(zip(flow.outputs, current.outputs, strict=True)) | beside
    return found
