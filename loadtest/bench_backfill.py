"""`make bench-backfill`: how many events a second a backfill takes, beside a worker that drains the same topic.

Fills the source of the flow `gps`, lets `streams worker` drain it alone, then `streams backfill` run the same history
into a version, alone as well; both under the same settings. The rate is that of the middle nine tenths of the offsets
that the group commits, so that starting and stopping do not count. Asked is a ratio of 0.9. Figures of one machine;
compare ratios of one run.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from confluent_kafka import KafkaException, TopicPartition

from loadtest import clients
from loadtest.fleet import Fleet, FleetShape
from loadtest.fleet.fill import Filler
from loadtest.prepare import prepare_pipeline
from loadtest.program import run_to_the_end
from loadtest.report import describe_machine
from loadtest.worker import free_port
from logistics.flows.gps import GPS
from streams.errors import FoundSomething, StreamsError
from streams.local.stack import running_stack
from streams.settings import load_settings

VERSION: Final = "bench"
RATIO_MIN: Final = 0.9
_LOOK_S: Final = 0.1
_STILL_S_MAX: Final = 300.0
_EDGE: Final = 0.05


class Drained:
    """What the group of a flow has committed, looked at again and again until it has all."""

    def __init__(self, bootstrap: str, group: str, partitions: int, total: int) -> None:
        config = {"group.id": group, "enable.auto.commit": False, "isolation.level": "read_uncommitted"}
        self._consumer = clients.consumer(bootstrap, config)
        self._places = [TopicPartition(GPS.source, partition) for partition in range(partitions)]
        self._total = total
        self._looks: list[tuple[float, int]] = []

    def wait(self, is_running: Callable[[], bool]) -> float:
        """Events a second between the first and the last twentieth, once all is committed.

        Raises:
            StreamsError: the program has ended before that, or nothing moves.

        """
        moved_s, last = time.monotonic(), -1
        while last < self._total:
            try:
                found = self._consumer.committed(self._places, 5.0)
            except KafkaException:
                continue
            now_s, done = time.monotonic(), sum(max(one.offset, 0) for one in found)
            if done != last:
                moved_s, last = now_s, done
                self._looks.append((now_s, done))
            if done < self._total and not is_running():
                raise StreamsError(f"it has ended at {done:,} of {self._total:,} events")
            if now_s - moved_s > _STILL_S_MAX:
                raise StreamsError(f"nothing moves at {done:,} of {self._total:,} events")
            time.sleep(_LOOK_S)
        self._consumer.close()
        low, high = self._total * _EDGE, self._total * (1 - _EDGE)
        inside = [look for look in self._looks if low <= look[1] <= high]
        (first_s, first), (last_s, until) = (
            (inside[0], inside[-1]) if len(inside) > 1 else (self._looks[0], self._looks[-1])
        )
        return (until - first) / max(last_s - first_s, _LOOK_S)


def bench(
    events: Annotated[int, typer.Option(min=10_000, help="Events of the history.")] = 5_000_000,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of every topic.")] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the traffic.")] = 1,
    share: Annotated[float, typer.Option(min=0.01, max=1.0, help="Of the processors, for the backfill.")] = 1.0,
) -> None:
    """Measure a backfill beside a worker; print the figures as JSON. Exit status 100: the ratio is less than asked."""
    with tempfile.TemporaryDirectory(prefix="streams-bench-backfill-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        with running_stack(folder / "stack") as stack:
            settings = load_settings(
                kafka_bootstrap_servers=stack.bootstrap_servers, schema_registry_url=stack.registry_url
            )
            schema, schema_id = prepare_pipeline(settings, GPS.name, partitions)
            filler = Filler(stack.bootstrap_servers)
            start_ms = (time.time_ns() // 1_000_000) - 86_400_000
            shape = FleetShape(devices=10_000, start_ms=start_ms, schema=schema, schema_id=schema_id)
            for batch in Fleet(seed, shape).batches(events):
                filler.send(GPS.source, batch)
            filler.flush()
            environment = {**os.environ, **stack.environment(), "STREAMS_IDLE_MS": "3600000"}
            where = stack.bootstrap_servers
            programs = [
                (GPS, ["worker", "--pipeline", GPS.name]),
                (GPS.as_version(VERSION), ["backfill", "--flow", GPS.name, "--into", VERSION, "--share", str(share)]),
            ]
            worker, backfill = (
                _rate(
                    [*program, "--data-dir", str(folder / flow.name), "--web-port", str(free_port())], environment,
                    Drained(where, flow.group, partitions, events), folder / f"{flow.name}.log",
                )
                for flow, program in programs
            )  # fmt: skip
    found: dict[str, Any] = {
        "scenario": "bench-backfill",
        "events": events,
        "partitions": partitions,
        "share": share,
        "events_per_second": {"worker": round(worker), "backfill": round(backfill)},
        "ratio": round(backfill / worker, 3),
        "machine": describe_machine(),
    }
    typer.echo(json.dumps(found, indent=2, default=str))
    if share == 1.0 and backfill / worker < RATIO_MIN:
        raise FoundSomething(
            f"a backfill takes {backfill / worker:.2f} of a worker's events: {RATIO_MIN:g} is asked for"
        )


def _rate(arguments: Sequence[str], environment: dict[str, str], drained: Drained, log: Path) -> float:
    """Events a second of a program, which is stopped when it has all."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams", *arguments], env=environment, stdout=out, stderr=out,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            return drained.wait(lambda: process.poll() is None)
        except StreamsError as error:
            raise StreamsError(f"{error}:\n{log.read_text(errors='replace')[-2000:]}") from None
        finally:
            process.terminate()
            process.wait(60)


def main() -> None:
    """Run the command line; whatever ends it, what it started is stopped."""
    run_to_the_end("bench-backfill", bench)


if __name__ == "__main__":
    main()
