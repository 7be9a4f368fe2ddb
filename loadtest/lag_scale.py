"""What a round of the monitor costs with 1,000 partitions and 50 groups: `python -m loadtest.lag_scale`.

Every group has committed every partition, at different offsets, and is behind in most of them: the dearest case.
Prints CPU seconds of both processes for each round: reading offsets (the child), and noting, looking up and judging.
"""

import argparse
import tempfile
import time
from pathlib import Path

import psutil
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    NewTopic,
)

from loadtest import clients
from streams.kafka.offsets_process import RoundFailed
from streams.local.stack import Stack, running_stack
from streams.monitor.evaluator import LagEvaluator
from streams.settings import load_settings

TOPIC = "lag-scale"
RECORDS = 5


def fill(stack: Stack, partitions: int, groups: int) -> None:
    """Make the topic, put a few records into each partition, have each group commit each partition."""
    address = stack.bootstrap_servers
    client = clients.admin(address)
    client.create_topics([NewTopic(TOPIC, partitions, 1)])[TOPIC].result(60)
    producer = clients.producer(address, {})
    while len(producer.list_topics(timeout=10).topics[TOPIC].partitions) < partitions:
        time.sleep(0.2)
    for partition in range(partitions):
        for _ in range(RECORDS):
            producer.produce(TOPIC, b"record", partition=partition)
    producer.flush(60)
    for group in range(groups):
        consumer = clients.consumer(address, {"group.id": f"{TOPIC}-{group}", "enable.auto.commit": False})
        offsets = [TopicPartition(TOPIC, one, (group + one) % (RECORDS + 1)) for one in range(partitions)]
        consumer.commit(offsets=offsets, asynchronous=False)
        consumer.close()
        print(f"\rgroups {group + 1}/{groups}", end="", flush=True)
    print()


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=1_000)
    parser.add_argument("--groups", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    own = psutil.Process()
    with tempfile.TemporaryDirectory() as directory, running_stack(Path(directory) / "stack") as stack:
        fill(stack, arguments.partitions, arguments.groups)
        settings = load_settings(kafka_bootstrap_servers=stack.bootstrap_servers)
        with LagEvaluator(settings, window_s=120.0, interval_s=5.0) as evaluator:
            evaluator_rounds(evaluator, own, arguments.rounds)


def evaluator_rounds(evaluator: LagEvaluator, own: psutil.Process, rounds: int) -> None:
    """Take rounds and print what each has cost."""
    for number in range(rounds):
        children = {child.pid: cpu_s(child) for child in own.children()}
        began_s, before_s = time.monotonic(), cpu_s(own)
        try:
            _, groups = evaluator.look()
        except RoundFailed as error:
            print(f"round {number}: {error}")
            continue
        reading_s = sum(
            cpu_s(child) - children.get(child.pid, 0.0) for child in own.children() if child.name() != "java"
        )
        judged = sum(len(group.partitions) for group in groups.values())
        print(
            f"round {number:>2}: {judged:,} verdicts; CPU s: reading {reading_s:.2f},"
            f" judging {cpu_s(own) - before_s:.2f}; took {time.monotonic() - began_s:.1f} s"
        )


if __name__ == "__main__":
    main()
