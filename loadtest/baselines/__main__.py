"""`make loadtest-baselines`: the worker next to Kafka Streams, idiomatic Faust and Quix Streams, on the same traffic.

Each drains a topic of its own filled by the same generator (Faust and Quix Streams a shorter one, so that each takes
about as long), alone on the machine. Kafka Streams is tuned and does the same but for windows. The worker does more
than the other two: exactly once, order, validation, dead letters, windows. The oracle judges the worker's output.
Exit status: 0 measured, 1 it could not be, 100 measured, but the oracle found the worker's output wrong.
"""

import os
import tempfile
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.baselines.run import Baselines, find_quix
from loadtest.parts import Folders, Options
from loadtest.program import run_to_the_end
from loadtest.report import RESULTS, ResultName, Results, ResultsFolder, faults, named, print_results
from streams.errors import FoundSomething
from streams.local.stack import running_stack
from streams.settings import load_settings


class Scenario(StrEnum):
    """What can be measured by itself."""

    WORKER = "worker"
    KAFKA_STREAMS = "kafka-streams"
    FAUST = "faust"
    QUIX = "quix"


def command(
    *,
    events: Annotated[int, typer.Option(min=1_000, help="Records for the worker and Kafka Streams.")] = 1_000_000,
    faust_events: Annotated[int, typer.Option(min=100, help="Records for Faust.")] = 20_000,
    quix_events: Annotated[int, typer.Option(min=100, help="Records for Quix Streams.")] = 50_000,
    steady_s: Annotated[
        int, typer.Option(min=0, help="Seconds at 10,000 events/s for the worker and Kafka Streams; 0: none.")
    ] = 30,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of every topic.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the traffic.")] = 1,
    only: Annotated[list[Scenario] | None, typer.Option(help="Measure this alone; may be repeated.")] = None,
    name: ResultName = None,
    root: ResultsFolder = RESULTS,
) -> None:
    """Measure one after the other; print events/s, events per CPU-second, and the worker's ratio to each."""
    scenarios = frozenset(only or Scenario)
    if Scenario.QUIX in scenarios:
        find_quix()
    options = Options(
        events=events,
        orders_events=0,
        partitions=partitions,
        faust_events=faust_events,
        latency_s=0,
        memory_s=0,
        seed=seed,
        parts=frozenset(),
        steady_s=steady_s,
    )
    console = Console()
    results = Results(named(name, "baselines"))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    try:
        with tempfile.TemporaryDirectory(prefix="streams-baselines-", ignore_cleanup_errors=True) as scratch:
            console.print("starting the stack")
            with running_stack(Path(scratch) / "stack") as stack, Progress(*columns, console=console) as bars:
                settings = load_settings(
                    kafka_bootstrap_servers=stack.bootstrap_servers, schema_registry_url=stack.registry_url
                )
                folders = Folders(Path(scratch), root / results.name)
                bench = Baselines(settings, options, folders, bars, quix_events=quix_events, scenarios=scenarios)
                with closing(bench):
                    for run in bench.runs():
                        results.runs.append(run)
    finally:
        if results.runs:
            stored = results.write(root)
            print_results(console, results)
            console.print(f"stored in {os.path.relpath(stored)}")
    if any(run.oracle and faults(run.oracle) for run in results.runs):
        raise FoundSomething("the worker's output differs from what the input demands")


def main() -> None:
    """Run the command line; whatever ends it, what it started is stopped."""
    run_to_the_end("baselines", command)


if __name__ == "__main__":
    main()
