"""`make bench`: one worker, exactly once, next to a pass-through that does nothing and to Faust by the book.

Fills a topic, lets each program drain it alone, checks the worker's output with the oracle, does the same with a topic
of orders, and measures the time from event to visible output at a steady rate. Kafka Streams drains a topic of its own
with the same traffic; CPU time at a steady rate is measured of the worker and of Kafka Streams. A worker of another
flow joins two topics. Everything runs on a stack of its own, which is removed afterwards.
Exit status: 0 measured, 1 it could not be, 100 measured, but the oracle found the worker's output wrong.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.joins.bench import BenchWithJoin
from loadtest.oracle.check import print_report
from loadtest.oracle.compare import Report
from loadtest.parts import DEFAULT_PARTS, Folders, Options, Part
from loadtest.program import run_to_the_end
from loadtest.report import RESULTS, ResultName, Results, ResultsFolder, named, print_results
from streams.errors import FoundSomething
from streams.local.stack import running_stack
from streams.settings import Settings, load_settings

PASSTHROUGH_SHARE_MIN: Final = 0.45
"""Events per CPU-second of the worker over those of the pass-through: what is to be reached.

The pass-through does what the client library must do on the same machine. Nothing is asked of the ratio to Faust: its
baseline was seen between 873 and 2,700 events per CPU-second, so that the ratio says more of the machine.
"""


@contextmanager
def _stack(directory: Path, *, use_running: bool) -> Iterator[Settings]:
    """Settings that point to a stack of our own, or to the one that the environment names."""
    if use_running:
        yield load_settings()
        return
    with running_stack(directory) as stack:
        yield load_settings(kafka_bootstrap_servers=stack.bootstrap_servers, schema_registry_url=stack.registry_url)


def command(
    *,
    events: Annotated[int, typer.Option(min=1_000, help="Records for worker and pass-through.")] = 1_000_000,
    orders_events: Annotated[int, typer.Option(min=1_000, help="Records of orders for the worker.")] = 500_000,
    join_positions: Annotated[int, typer.Option(min=1_000, help="Positions for the join.")] = 1_000_000,
    join_steps: Annotated[int, typer.Option(min=1_000, help="Steps of orders that are joined.")] = 300_000,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of every topic.")] = 12,
    faust_events: Annotated[int, typer.Option(min=100, help="Records that Faust drains.")] = 20_000,
    latency_s: Annotated[int, typer.Option(min=1, help="Seconds at 10,000 events/s, after a warm-up.")] = 20,
    steady_s: Annotated[int, typer.Option(min=1, help="Seconds of steady traffic of 10,000 events/s.")] = 30,
    memory_s: Annotated[int, typer.Option(min=60, help="Seconds that memory is watched, after a warm-up.")] = 600,
    seed: Annotated[int, typer.Option(help="Seed of the traffic.")] = 1,
    skip: Annotated[list[Part] | None, typer.Option(help="Leave this part out; may be repeated.")] = None,
    only: Annotated[
        list[Part] | None, typer.Option(help="Measure this part; may be repeated. Default: all but memory.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A fifth of everything: a look, not a result.")] = False,
    use_running: Annotated[
        bool, typer.Option("--use-running", help="The stack of KAFKA_BOOTSTRAP_SERVERS; its topics must be empty.")
    ] = False,
    name: ResultName = None,
    root: ResultsFolder = RESULTS,
) -> None:
    """Measure one worker next to a pass-through, Kafka Streams and idiomatic Faust; print and store the figures."""
    share = 5 if quick else 1
    options = Options(
        events=events // share,
        orders_events=orders_events // share,
        partitions=partitions,
        faust_events=faust_events // share,
        latency_s=max(4, latency_s // share),
        memory_s=max(60, memory_s // share),
        seed=seed,
        steady_s=max(5, steady_s // share),
        join_positions=join_positions // share,
        join_steps=join_steps // share,
        parts=frozenset(only or DEFAULT_PARTS) - frozenset(skip or ()),
    )
    console = Console()
    results = Results(named(name, "bench"))
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    wrong: dict[str, Report] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="streams-bench-", ignore_cleanup_errors=True) as scratch:
            folders = Folders(Path(scratch), root / results.name)
            console.print("starting the stack")
            with _stack(folders.data / "stack", use_running=use_running) as settings, bars:
                bench = BenchWithJoin(settings, options, folders, bars)
                with closing(bench):
                    results.runs.extend(bench.runs())
            wrong = {name: report for name, report in bench.oracles.items() if not report.ok}
    finally:
        # Store what was measured before a failure or an interrupt.
        if results.runs:
            stored = results.write(root)
            print_results(console, results)
            console.print(f"stored in {os.path.relpath(stored)}")
    if shortfall := passthrough_shortfall(results.ratios()):
        console.print(f"[yellow]{shortfall}")
    for pipeline, report in wrong.items():
        console.print(f"flow {pipeline}:")
        print_report(console, report)
    if wrong:
        raise FoundSomething("the worker's output differs from what the input demands")


def passthrough_shortfall(ratios: Mapping[str, float]) -> str:
    """What to print when the worker does too little for what the client library costs; empty when it does enough."""
    share = ratios.get("passthrough", PASSTHROUGH_SHARE_MIN)
    if share >= PASSTHROUGH_SHARE_MIN:
        return ""
    return f"{share:.2f} times the pass-through: at least {PASSTHROUGH_SHARE_MIN:g} is asked for"


def main() -> None:
    """Run the command line; whatever ends it, what it started is stopped."""
    run_to_the_end("bench", command)


if __name__ == "__main__":
    main()
