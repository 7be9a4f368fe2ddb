"""Reads the state of a growing flow from a Kafka cluster, and changes the cluster step by step."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Final, Self

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions

from streams.acls.roles import growing_rights
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.grow.found import Found
from streams.grow.log import GrowthWriter
from streams.grow.stuck import stuck_partitions
from streams.growth.committed import standing_of
from streams.growth.layout import Growth
from streams.growth.plan import Addition
from streams.growth.record import GrowthRecord
from streams.growth.stages import Standing
from streams.kafka import acls
from streams.kafka.admin import REQUEST_TIMEOUT_S, admin_client, described, partition_counts_with_leaderless, settled
from streams.kafka.group_positions import GroupPositions
from streams.kafka.growth_topic import GrowthTopic
from streams.kafka.log_reader import LogReader, Span
from streams.kafka.offsets_process import OffsetProbe, RoundFailed
from streams.kafka.round import Round
from streams.resilience.retry import Backoff, Retrier, quietly
from streams.settings import Settings
from streams.sinks.base import WriteInterrupted

_LOOK_S: Final = 1.0
_LISTED_S: Final = 15.0
_ROUND_AGAIN: Final = Backoff(first_s=0.5, pause_s_max=2.0, attempts_max=3)
_LOOK_AGAIN: Final = Backoff(first_s=0.2, pause_s_max=2.0, give_up_s=15.0)


class GrowthAdmin:
    """Reads and changes the growth of one flow. For one thread; call `close` when done.

    What fails raises StreamsError, and may be tried again: clients are re-created, since one that lost its broker may
    never get an answer again.
    """

    def __init__(
        self,
        settings: Settings,
        flow: Pipeline,
        all_flows: Sequence[Pipeline] = (),
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`all_flows`: declared flows, of which some may read outputs of this one."""
        self._settings, self._flow, self._all = settings, flow, all_flows
        self._pause = pause
        self._client: AdminClient | None = None
        self._positions = GroupPositions(settings, group=flow.group, topics=[one.topic for one in flow.inputs])
        self._topic = GrowthTopic(settings, flow)
        self._writer = GrowthWriter(settings, source=flow.source, topic=flow.growth)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._forget_clients()
        self._topic.close()
        self._writer.close()

    def require_rights(self) -> None:
        """Return if this principal may do all that a growth of the flow needs on its topics.

        Raises:
            StreamsError: it may not, and which rights are lacking; or no answer.

        """
        acls.require(self._admin(), growing_rights(self._flow))

    def look(self) -> Found:
        """The flow as it is now; tries for some seconds, since brokers that have just started may not answer.

        Raises:
            StreamsError: no answer.

        """
        what = f"looking at {self._flow.name}"
        return Retrier(say=quietly).call(what, self._look, passing=StreamsError, backoff=_LOOK_AGAIN)

    def _look(self) -> Found:
        try:
            counts = partition_counts_with_leaderless(self._admin())
            records = self._topic.read()
            standings = self._standings(counts.get(self._flow.source, 0))
        except StreamsError:
            self._forget_clients()
            raise
        return Found(self._flow, records, counts, standings, self._all)

    def stuck(self, partitions: int, patience_s: float) -> dict[int, str]:
        """Partitions among the first `partitions` of the source that are not processed for `patience_s`, and why.

        Raises:
            StreamsError: no answer.

        """
        with closing(OffsetProbe(self._settings)) as probe:
            before = self._round(probe)
            deadline_s = time.monotonic() + patience_s
            while True:
                self._pause(_LOOK_S)
                now = self._round(probe)
                found = self._judged(partitions, before, now)
                if not found or time.monotonic() >= deadline_s:
                    return found

    def open(self) -> None:
        """Become the only command that grows the flow: others end. What is read after this is final.

        Raises:
            FencedError: another one has opened meanwhile.
            StreamsError: no answer.

        """
        try:
            self._writer.open()
        except WriteInterrupted as error:
            raise StreamsError(str(error)) from None

    def write(self, record: GrowthRecord) -> None:
        """Write the growth's record; raises as `open`, which has to be called again after any error."""
        try:
            self._writer.write(record)
        except WriteInterrupted as error:
            raise StreamsError(f"writing {self._flow.growth}: {error}") from None

    def give_up(self, growth: Growth) -> None:
        """Take the growth's record back; raises as `write`."""
        try:
            self._writer.give_up(growth)
        except WriteInterrupted as error:
            raise StreamsError(f"writing {self._flow.growth}: {error}") from None

    def add(self, addition: Addition) -> None:
        """Give one topic its partitions; returns when brokers list them. Repeating it changes nothing.

        Raises:
            StreamsError: the broker refuses, or does not answer.

        """
        topic, count = addition.topic, addition.after
        what = f"adding partitions to {topic}"
        try:
            asked = self._admin().create_partitions(
                [NewPartitions(topic, count)], request_timeout=REQUEST_TIMEOUT_S, operation_timeout=REQUEST_TIMEOUT_S
            )
            settled(what, asked[topic], fine=(KafkaError.INVALID_PARTITIONS,))  # it has them: looked at below
            self._await_listed(topic, count)
        except KafkaException as error:
            self._forget_clients()
            raise StreamsError(f"{what}: {described(error)}") from None
        except StreamsError:
            self._forget_clients()
            raise

    def _await_listed(self, topic: str, count: int) -> None:
        deadline_s = time.monotonic() + _LISTED_S
        while (there := partition_counts_with_leaderless(self._admin()).get(topic, 0)) < count:
            if time.monotonic() >= deadline_s:
                raise StreamsError(f"adding partitions to {topic}: brokers list {there}, not {count}")
            self._pause(0.1)

    def _standings(self, partitions: int) -> Mapping[int, Standing]:
        """Read without the admin client, which may abort the process (`streams.kafka.offsets`)."""
        found = self._positions.committed(range(partitions)) if partitions else {}
        return {partition: standing_of(position) for partition, position in found.items()}

    def _round(self, probe: OffsetProbe) -> Round:
        """Read a round; again if its process had to be ended: on a busy machine an answer may take too long."""
        what = f"reading offsets of {self._flow.group}"
        take = partial(probe.take, [self._flow.group])
        return Retrier(say=quietly).call(what, take, passing=RoundFailed, backoff=_ROUND_AGAIN)

    def _judged(self, partitions: int, before: Round, now: Round) -> dict[int, str]:
        with LogReader(self._settings, client="streams-growth", group=self._flow.group) as reader:

            def has_records(partition: int, first: int, end: int) -> bool:
                span = Span(self._flow.source, partition, first, end)
                read = reader.read([span])[span]
                return bool(read.records) or not read.complete

            return stuck_partitions(self._flow, partitions, before, now, has_records)

    def _admin(self) -> AdminClient:
        if self._client is None:
            self._client = admin_client(self._settings)
        return self._client

    def _forget_clients(self) -> None:
        self._client = None
        self._positions.close()
