"""The options of a load test, and its course from plan to report."""

import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from loadtest.cluster import cluster
from loadtest.findings import Findings, earlier_results, print_findings
from loadtest.measure import Measurement
from loadtest.oracle.check import print_report
from loadtest.plan import PARTITIONS_DEFAULT, Drive, Plan, Work
from loadtest.report import RESULTS, ResultName, ResultsFolder, named
from streams.errors import FoundSomething, StreamsError, UsageError

DISK_BYTES_PER_EVENT: Final = 1_500
"""In and out, logs and state; what is asked for must fit on the disk."""


def command(
    *,
    drive: Annotated[Drive, typer.Option(help="How traffic meets the workers.")] = Drive.DRAIN,
    partitions: Annotated[str, typer.Option(help="Numbers of partitions, one point each.")] = ",".join(
        map(str, PARTITIONS_DEFAULT)
    ),
    work: Annotated[str, typer.Option(help="cpu: the pipeline alone; downstream: each partition waits for calls.")] = (
        "cpu,downstream"
    ),
    workers_max: Annotated[
        int | None,
        typer.Option(min=1, help="One worker a partition, up to this. Default: cores; 12 if they wait."),
    ] = None,
    generators: Annotated[int, typer.Option(min=1, help="Generator processes.")] = 1,
    events: Annotated[int, typer.Option(min=1_000, help="Records that a drain empties.")] = 500_000,
    rate: Annotated[int, typer.Option(min=0, help="Events/s of open loops and latency; 0: by what was drained.")] = 0,
    seconds: Annotated[int, typer.Option(min=5, help="Length of an open-loop phase, after its warm-up.")] = 8,
    downstream_ms: Annotated[int, typer.Option(min=1, max=5_000, help="Duration of a downstream call.")] = 100,
    downstream_records: Annotated[int, typer.Option(min=1, help="Events of one partition in a call.")] = 250,
    lateness_ms: Annotated[int, typer.Option(min=0, help="How long workers wait for order; part of latency.")] = 2_500,
    pipeline: Annotated[str, typer.Option(help="gps or orders.")] = "gps",
    seed: Annotated[int, typer.Option(min=0, help="The same seed sends the same events.")] = 1,
    mix: Annotated[
        list[str] | None, typer.Option(help="Option of `python -m loadtest.generator`, as duplicates=0.2; repeat.")
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="An earlier result: its name, or path of its report.json.")
    ] = None,
    price_per_core_hour: Annotated[float, typer.Option(min=0, help="For the cost per million events.")] = 0.04,
    use_running: Annotated[
        bool, typer.Option("--use-running", help="The cluster of KAFKA_BOOTSTRAP_SERVERS, not a stack of its own.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave topics behind (with --use-running).")] = False,
    defect: Annotated[
        str, typer.Option(help="drop:N: workers lose one event in N. The oracle must find it (a test of the test).")
    ] = "",
    name: ResultName = None,
    root: ResultsFolder = RESULTS,
) -> None:
    """Measure throughput, lag and latency by number of partitions; find the bottleneck; check every output."""
    plan = Plan(
        pipeline=pipeline,
        drive=drive,
        partitions=_numbers(partitions),
        works=_works(work),
        workers_max=workers_max,
        generators=generators,
        events=events,
        rate=rate,
        seconds=seconds,
        downstream_ms=downstream_ms,
        downstream_records=downstream_records,
        lateness_ms=lateness_ms,
        seed=seed,
        defect=defect,
        mix=_mix(mix or []),
    )
    earlier = earlier_results(compare, root) if compare else None
    _require_disk(plan)
    console = Console()
    findings = Findings(named(name, "loadtest"), plan, price_per_core_hour)
    logs = root / findings.name / "logs"
    try:
        with tempfile.TemporaryDirectory(prefix="streams-loadtest-", ignore_cleanup_errors=True) as scratch:
            _measure(console, plan, findings, Path(scratch), logs, use_running=use_running, keep=keep)
    finally:
        # What was measured before something failed, or someone lost patience, is worth having.
        if findings.outcomes:
            stored = findings.write(root, earlier=earlier)
            print_findings(console, findings, earlier=earlier)
            console.print(f"stored in {os.path.relpath(stored)}: report.html, report.json", highlight=False)
    wrong = [outcome for outcome in findings.outcomes if outcome.oracle is not None and not outcome.oracle.ok]
    for outcome in wrong:
        console.print(f"[bold red]{outcome.point.label}: wrong")
        if outcome.oracle is not None:
            print_report(console, outcome.oracle)
    if wrong:
        raise FoundSomething("the output differs from what the input demands, whatever the speed")


def _measure(
    console: Console, plan: Plan, findings: Findings, scratch: Path, logs: Path, *, use_running: bool, keep: bool
) -> None:
    points = plan.points()
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[doing]}"), TimeElapsedColumn(),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip
    console.print("connecting to the cluster" if use_running else "starting a stack of its own", highlight=False)
    with cluster(scratch / "stack", use_running=use_running) as where, bars:
        for number, point in enumerate(points, 1):
            title = f"{number}/{len(points)} {plan.drive} {point.work}, {point.partitions} partitions"
            task = bars.add_task(title, total=1.0, doing="")
            measurement = Measurement(where, plan, point, findings.name, scratch, logs, keep=keep)
            if bars.disable:
                console.print(title, highlight=False)
            outcome = measurement.run(partial(_show, bars, task))
            findings.outcomes.append(outcome)
            rate = f"{outcome.run.consume_rate:,.0f} events/s" if outcome.run.consume_rate else "done"
            result = f"{rate}, bottleneck: {outcome.bottleneck.wall.value}"
            bars.update(task, doing=result, completed=1.0)
            if bars.disable:
                console.print(f"    {result}", highlight=False)


def _show(bars: Progress, task: TaskID, doing: str, share: float) -> None:
    bars.update(task, doing=doing, completed=min(share, 0.99))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--partitions must be numbers, as in 3,6,12; got {text!r}") from None


def _works(text: str) -> tuple[Work, ...]:
    try:
        return tuple(Work(part.strip()) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--work must be cpu, downstream or both; got {text!r}") from None


def _mix(options: list[str]) -> tuple[str, ...]:
    """`duplicates=0.2` to the generator's own flag."""
    flags: list[str] = []
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.replace("-", "").isalnum():
            raise UsageError(f"--mix must be name=value, as duplicates=0.2; got {option!r}")
        flags += [f"--{name.lstrip('-')}", value]
    return tuple(flags)


def _require_disk(plan: Plan) -> None:
    """Refuse what cannot fit, before anything is started.

    Raises:
        StreamsError: the disk is too small for one point.

    """
    downstream = max((plan.downstream_rate(number) for number in plan.partitions), default=0.0)
    most = max(plan.events, plan.rate * plan.seconds * 2, int(downstream * plan.seconds * 2))
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if most * DISK_BYTES_PER_EVENT > free:
        raise StreamsError(
            f"{most:,} events want about {most * DISK_BYTES_PER_EVENT / 1e9:.0f} GB in {tempfile.gettempdir()}, "
            f"which has {free / 1e9:.0f} GB: fewer events, or set TMPDIR"
        )
