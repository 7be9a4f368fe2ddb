"""Reads the growth topic of a flow: all its growths, and the progress of the newest."""

from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.growth.record import GrowthLogError, GrowthRecord, newest_records
from streams.kafka.control_topic import READ_TIMEOUT_S, ControlTopic
from streams.settings import Settings


class GrowthTopic(ControlTopic):
    """Reads one growth topic. Any thread. If the topic does not exist, the flow was never grown."""

    def __init__(self, settings: Settings, flow: Pipeline) -> None:
        """Prepare to read the topic of `flow`; a connection is made by the first read."""
        super().__init__(
            settings, flow.growth, client="streams-growth", group=flow.group, what="this flow is not grown"
        )

    def read(self, timeout_s: float = READ_TIMEOUT_S) -> list[GrowthRecord]:
        """Read the topic, and return its growths by epoch; `records` returns the same until the next call.

        Raises:
            StreamsError: no answer; or the topic holds something else.

        """
        self.refresh(timeout_s)
        return self.records()

    def records(self) -> list[GrowthRecord]:
        """The growths by epoch, as of the last read.

        Raises:
            StreamsError: the topic holds something else.

        """
        try:
            return newest_records(self.log())
        except GrowthLogError as error:
            raise StreamsError(f"{self._topic}: {error}") from None
