"""`streams forget` while workers of the flow run: it sends them a request and waits (docs/adr/0090)."""

import time
import uuid
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streams.acls.rights import Operation, on_topic
from streams.batch.lanes import lane_of
from streams.deadletters.letter.audit import Actor
from streams.engine.forget import ForgetRequest, OpenRequests
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka import acls, clients
from streams.kafka.admin import described, wait_for_broker
from streams.kafka.changelog import KafkaChangelog
from streams.kafka.partitioner import partition_of
from streams.kafka.places import KafkaPlaces
from streams.kafka.topics import create_topic
from streams.resilience.retry import Retrier, quietly
from streams.settings import Settings
from streams.worker.forgetting import Forgotten, Say
from streams.worker.rebuild import members_of

_LOOK_S: Final = 1.0
_SEND_TIMEOUT_S: Final = 30.0


class ForgetAsking:
    """Asks the workers of one flow to forget one key. Close it when done."""

    def __init__(self, settings: Settings, pipeline: Pipeline, key: bytes, say: Say) -> None:
        """Connect.

        Raises:
            StreamsError: no broker, or topics are missing.

        """
        self._settings, self._pipeline, self._key, self._say = settings, pipeline, key, say
        self._client = wait_for_broker(settings)
        self.partition = partition_of(key, KafkaPlaces(settings, pipeline).find().partitions)
        self._changelog = KafkaChangelog(
            settings, group=pipeline.group, source=pipeline.source, retrier=Retrier(say=quietly),
            further=tuple(one.topic for one in pipeline.further_inputs),
        )  # fmt: skip

    def close(self) -> None:
        """Disconnect."""
        self._changelog.close()

    def look(self) -> Forgotten:
        """Tables that have a row of the key now. Windows and other state beside the rows of tables are not reported.

        Raises:
            StreamsError: no answer.

        """
        return Forgotten(self.partition, tuple(filter(self._has_row, self._pipeline.table_topics)))

    def _has_row(self, table: str) -> bool:
        low, end = self._changelog.bounds(table, self.partition, stable=True)
        newest: bytes | None = None
        for rows in self._changelog.read(table, self.partition, low, end):
            for row in rows:
                if row.key == self._key:
                    newest = row.value
        return newest is not None

    def forget(self, actor: Actor, *, wait_s: float) -> bool:
        """Send the request and wait until it is done; False: the group has no members left, and nobody has done it.

        Raises:
            StreamsError: it was not done in that time. The request stays open for a day.

        """
        flow = self._pipeline
        request = ForgetRequest(uuid.uuid4().hex, self._key, self._after(), actor)
        send_request(self._settings, self._client, flow, request)
        self._say(f"the workers of {flow.name} are asked; they do it once no event of the key waits")
        requests, deadline = OpenRequests(flow, self._changelog), time.monotonic() + wait_s
        while any(one.id == request.id for one in requests.read()):
            if not members_of(self._client, flow):
                return False
            if time.monotonic() > deadline:
                raise StreamsError(
                    f"not forgotten within {wait_s:g} s: events of the key still come or wait for their turn, or its "
                    "partition has no worker of this version (streams lag shows which partitions stand still). The "
                    "request stays open for a day. Stop what sends the key; or stop the workers, and run the command "
                    "again"
                )
            time.sleep(_LOOK_S)
        return True

    def _after(self) -> tuple[int, ...]:
        """For each input, the offset that workers must have passed so that no record of the key is left."""
        found, inputs = [], self._pipeline.inputs
        lanes = [lane_of(number, self.partition) for number in range(len(inputs))]
        committed = self._changelog.committed(lanes)
        for lane, one in zip(lanes, inputs, strict=True):
            low, end = self._changelog.bounds(one.topic, self.partition)
            at = committed[lane]
            start = low if at is None else max(low, at.offset_next)
            read = self._changelog.read(one.topic, self.partition, start, end)
            found.append(max((row.offset + 1 for rows in read for row in rows if row.key == self._key), default=0))
        return tuple(found)


def send_request(settings: Settings, client: AdminClient, flow: Pipeline, request: ForgetRequest) -> None:
    """Write a request to the flow's topic of requests; the topic is created where it is missing.

    Raises:
        StreamsError: the principal may not, or no answer.

    """
    acls.require(client, [on_topic(flow.forget, Operation.WRITE)])
    create_topic(client, flow.forget_topic(), partitions=1)
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            failed.append(error)

    producer = clients.producer(settings, {"enable.idempotence": True})
    producer.produce(flow.forget, request.pack(), request.id.encode(), partition=0, on_delivery=delivered)
    left = producer.flush(_SEND_TIMEOUT_S)
    if failed or left:
        why = described(KafkaException(failed[0])) if failed else "no answer"
        raise StreamsError(f"asking the workers by topic {flow.forget}: {why}")
