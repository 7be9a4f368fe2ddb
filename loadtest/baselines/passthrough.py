"""Pass-through: what Kafka itself costs, transactions included, when a worker does nothing with the events.

Consume, produce the same key, value and timestamp, commit offsets and output in one transaction per interval. It uses
the worker's client, batch sizes and librdkafka options, and nothing but the calls that moving a record needs: the
yardstick of `make bench`. Prints `ready` once partitions are assigned; stops on SIGTERM.
"""

import argparse
import signal
import time
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from loadtest import clients

BATCH_RECORDS_MAX: Final = 20_000
BATCH_WAIT_S: Final = 0.05

CONSUMER_CONFIG: Final = {
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "partition.assignment.strategy": "cooperative-sticky",
    "queued.min.messages": 100_000,
    "queued.max.messages.kbytes": 65_536,
    "fetch.max.bytes": 16_777_216,
    "max.partition.fetch.bytes": 4_194_304,
    "fetch.wait.max.ms": 50,
}
QUEUE_RECORDS_MAX: Final = 1_000_000
PRODUCER_CONFIG: Final = {
    "compression.type": "lz4",
    "partitioner": "murmur2_random",
    "linger.ms": 20,
    "batch.num.messages": 50_000,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": QUEUE_RECORDS_MAX,
    "queue.buffering.max.kbytes": 262_144,
}


class PassThrough:
    """One consumer and one transactional producer."""

    def __init__(self, bootstrap: str, group: str, source: str, target: str, commit_interval_s: float) -> None:
        self._target = target
        self._commit_interval_s = commit_interval_s
        self._consumer = clients.consumer(bootstrap, {**CONSUMER_CONFIG, "group.id": group})
        self._producer = clients.producer(bootstrap, {**PRODUCER_CONFIG, "transactional.id": group})
        self._producer.init_transactions()
        self._consumer.subscribe([source], on_assign=_announce)
        self.stopping = False

    def run(self) -> None:
        """Move records until told to stop; what is under way then is committed."""
        consume = self._consumer.consume
        while not self.stopping:
            messages = consume(BATCH_RECORDS_MAX, BATCH_WAIT_S)
            if not messages:
                continue
            self._producer.begin_transaction()
            due_s = time.monotonic() + self._commit_interval_s
            while True:
                self._forward(messages)
                if time.monotonic() >= due_s or self.stopping:
                    break
                messages = consume(BATCH_RECORDS_MAX, BATCH_WAIT_S)
            self._commit()
        self._consumer.close()

    def _forward(self, messages: list[Message]) -> None:
        produce, target = self._producer.produce, self._target
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
            try:
                produce(target, message.value(), message.key(), timestamp=message.timestamp()[1])
            except BufferError:
                while len(self._producer) > QUEUE_RECORDS_MAX // 2:
                    self._producer.poll(0.01)
                produce(target, message.value(), message.key(), timestamp=message.timestamp()[1])
        self._producer.poll(0)

    def _commit(self) -> None:
        positions: list[TopicPartition] = self._consumer.position(self._consumer.assignment())
        offsets_next = [position for position in positions if position.offset >= 0]
        self._producer.send_offsets_to_transaction(offsets_next, self._consumer.consumer_group_metadata())
        self._producer.commit_transaction()


def _announce(_consumer: Consumer, _partitions: list[TopicPartition]) -> None:
    print("ready", flush=True)


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--commit-interval-ms", type=int, default=200)
    arguments = parser.parse_args()
    passing = PassThrough(
        arguments.bootstrap,
        arguments.group,
        arguments.source,
        arguments.target,
        arguments.commit_interval_ms / 1000,
    )

    def stop(_signal: int, _frame: object) -> None:
        passing.stopping = True

    signal.signal(signal.SIGTERM, stop)
    passing.run()


if __name__ == "__main__":
    main()
