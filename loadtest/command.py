"""The options of a load test, and its course from plan to report."""

import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from loadtest.cluster import broker_configuration, cluster
from loadtest.cost import Prices
from loadtest.demand import Budget, Demand, require_room
from loadtest.findings import Findings, earlier_results, print_findings
from loadtest.growth.course import GrowthMeasurement
from loadtest.growth.report import print_figures
from loadtest.growth.report import write as write_growth
from loadtest.measure import Measurement, Outcome
from loadtest.oracle.check import print_report
from loadtest.plan import DEVICES_DEFAULT, FULL, QUICK, Drive, Length, Plan, Point, Work
from loadtest.report import RESULTS, ResultName, Results, ResultsFolder, named
from loadtest.worker_process import parse_defect
from streams.errors import FoundSomething, UsageError


def command(
    *,
    drive: Annotated[Drive, typer.Option(help="How traffic meets the workers.")] = Drive.DRAIN,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Steady states of a minute, three repetitions, the sustainable rate of each: hours. Default: quick.",
        ),
    ] = False,
    partitions: Annotated[
        str, typer.Option(help="Numbers of partitions. A number may be repeated. Default: 3,6,12; full: 1,2,3,6,12,24.")
    ] = "",
    workers: Annotated[
        str, typer.Option(help="Numbers of workers for cpu work, at the most partitions. Default: 1, 2, 4 ... cores.")
    ] = "",
    work: Annotated[str, typer.Option(help="cpu: the flow alone; downstream: each partition waits for calls.")] = (
        "cpu,downstream"
    ),
    workers_max: Annotated[
        int | None,
        typer.Option(min=1, help="Workers at most. Default: cores; 12 if they wait."),
    ] = None,
    generators: Annotated[int, typer.Option(min=1, help="Generator processes.")] = 1,
    events: Annotated[
        int, typer.Option(min=0, help="Records that a drain empties; 0: what the time asked for takes.")
    ] = 0,
    devices: Annotated[
        int, typer.Option(min=1, max=200_000, help="Vehicles or orders of a drain; fewer where it is short.")
    ] = DEVICES_DEFAULT,
    rate: Annotated[int, typer.Option(min=0, help="Events/s of open loops and latency; 0: by what was found.")] = 0,
    seconds: Annotated[
        float | None, typer.Option(min=5, help="Length of a steady state. Default: 10; full: 60.")
    ] = None,
    warm_up_s: Annotated[
        float | None, typer.Option(min=0, help="Before each, from the first due time. Default: 4; full: 30.")
    ] = None,
    repetitions: Annotated[
        int | None, typer.Option(min=1, help="Of each point, in shuffled order. Default: 2, as time permits; full: 3.")
    ] = None,
    minutes_max: Annotated[
        float | None,
        typer.Option(min=0, help="No point is begun that would end later; 0: all. Default: 10; full: all."),
    ] = None,
    downstream_ms: Annotated[int, typer.Option(min=1, max=5_000, help="Duration of a downstream call.")] = 100,
    downstream_records: Annotated[int, typer.Option(min=1, help="Events of one partition in a call.")] = 250,
    lateness_ms: Annotated[int, typer.Option(min=0, help="How long workers wait for order; part of latency.")] = 2_500,
    pipeline: Annotated[str, typer.Option(help="gps or orders.")] = "gps",
    seed: Annotated[
        int, typer.Option(min=0, help="The same seed sends the same events, in the same order of points.")
    ] = 1,
    mix: Annotated[
        list[str] | None, typer.Option(help="Option of `python -m loadtest.generator`, as duplicates=0.2; repeat.")
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="An earlier result: its name, or path of its report.json.")
    ] = None,
    price_per_core_hour: Annotated[float, typer.Option(min=0, help="For the cost per million events.")] = 0.04,
    currency: Annotated[str, typer.Option(help="Of that price.")] = "USD",
    oracle_memory_mb: Annotated[
        int | None,
        typer.Option(min=100, help="Of all the oracle's processes; less makes it slower. Default: 2000; full: 8000."),
    ] = None,
    use_running: Annotated[
        bool, typer.Option("--use-running", help="The cluster of KAFKA_BOOTSTRAP_SERVERS, not a stack of its own.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave topics behind (with --use-running).")] = False,
    grow: Annotated[
        str,
        typer.Option(
            help="3:12: grow the topics of a flow under load, in place of all other points. A rate of 60% of what the "
            "downstream lets through before, growth in mid-run, then three times as much."
        ),
    ] = "",
    defect: Annotated[
        str, typer.Option(help="drop:N: workers lose one event in N. The oracle must find it (a test of the test).")
    ] = "",
    name: ResultName = None,
    root: ResultsFolder = RESULTS,
) -> None:
    """Measure throughput, lag and latency by number of partitions; find the bottleneck; check every output."""
    parse_defect(defect)
    plan = Plan(
        pipeline=pipeline,
        drive=drive,
        partitions=_numbers(partitions, "--partitions") or (FULL if full else QUICK).partitions,
        works=_works(work),
        workers=_numbers(workers, "--workers"),
        workers_max=workers_max,
        generators=generators,
        events=events,
        rate=rate,
        downstream_ms=downstream_ms,
        downstream_records=downstream_records,
        lateness_ms=lateness_ms,
        seed=seed,
        length=_length(
            FULL if full else QUICK,
            seconds=seconds,
            warm_up_s=warm_up_s,
            repetitions=repetitions,
            minutes_max=minutes_max,
            oracle_memory_mb=oracle_memory_mb,
        ),
        defect=defect,
        mix=_mix(mix or []),
        devices=devices,
    )
    if grow:
        _grow(plan, grow, name, root, use_running=use_running)
        return
    earlier = earlier_results(compare, root) if compare else None
    require_room(plan, events=plan.events, rate=plan.rate)
    console = Console()
    findings = Findings(named(name, "loadtest"), plan, Prices(price_per_core_hour, currency))
    logs = root / findings.name / "logs"
    try:
        with tempfile.TemporaryDirectory(prefix="streams-loadtest-", ignore_cleanup_errors=True) as scratch:
            _measure(console, plan, findings, Path(scratch), logs, use_running=use_running, keep=keep)
    finally:
        # Store what was measured before a failure or an interrupt.
        if findings.outcomes or findings.discarded:
            stored = findings.write(root, earlier=earlier)
            print_findings(console, findings, earlier=earlier)
            console.print(f"stored in {os.path.relpath(stored)}: report.html, report.json", highlight=False)
    wrong = [
        outcome
        for outcome in [*findings.discarded, *findings.outcomes]
        if outcome.oracle is not None and not outcome.oracle.ok
    ]
    for outcome in wrong:
        console.print(f"[bold red]{outcome.point.label}: wrong")
        if outcome.oracle is not None:
            print_report(console, outcome.oracle)
    if wrong:
        raise FoundSomething("the output differs from what the input demands, whatever the speed")


def _grow(plan: Plan, grow: str, name: str | None, root: Path, *, use_running: bool) -> None:
    before, after = _growth_of(grow)
    if plan.pipeline != "gps":
        raise UsageError("--grow measures the flow gps")
    console, results = Console(), Results(named(name, "growth"))
    console.print("connecting to the cluster" if use_running else "starting a stack of its own", highlight=False)
    said = [""]

    def progress(doing: str, _: float) -> None:
        if doing != said[0]:
            said[0] = doing
            console.print(f"    {doing}", highlight=False)

    with tempfile.TemporaryDirectory(prefix="streams-loadtest-", ignore_cleanup_errors=True) as scratch:
        place = Path(scratch)
        with cluster(place / "stack", use_running=use_running) as where:
            measurement = GrowthMeasurement(
                where, plan, before, after, results.name, place / "workers", root / results.name / "logs"
            )
            figures = measurement.run(progress)
    folder = write_growth(figures, results, root)
    print_figures(console, figures)
    console.print(f"stored in {os.path.relpath(folder)}: report.html, report.json, growth.svg", highlight=False)
    if not figures.verdict.ok:
        raise FoundSomething("the output differs from what the input demands, whatever the speed")


def _growth_of(text: str) -> tuple[int, int]:
    try:
        before, after = (int(part) for part in text.split(":"))
    except ValueError:
        raise UsageError(f"--grow must be BEFORE:AFTER, as in 3:12; got {text!r}") from None
    if before < 1 or after <= before or after % before:
        raise UsageError(f"--grow {text}: the second number is a multiple of the first")
    return before, after


def _measure(
    console: Console, plan: Plan, findings: Findings, scratch: Path, logs: Path, *, use_running: bool, keep: bool
) -> None:
    points = plan.points()
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[doing]}"), TimeElapsedColumn(),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip
    console.print("connecting to the cluster" if use_running else "starting a stack of its own", highlight=False)
    began_s = time.monotonic()
    with cluster(scratch / "stack", use_running=use_running) as where, bars:
        findings.kafka = broker_configuration(where.settings)
        budget = Budget(began_s, plan.length.minutes_max)
        demand = Demand(plan)

        def measured(title: str, point: Point, plan: Plan, name: str) -> Outcome:
            require_room(plan, events=demand.events(point), rate=demand.rate(point))
            task = bars.add_task(title, total=1.0, doing="")
            if bars.disable:
                console.print(title, highlight=False)
            with budget.point():
                outcome = Measurement(
                    where, plan, point, name, scratch, logs, events=demand.events(point), keep=keep
                ).run(partial(_show, bars, task))
            demand.learn(point, outcome.run.consume_rate)
            rate = f"{outcome.run.consume_rate:,.0f} events/s" if outcome.run.consume_rate else "done"
            result = f"{rate}, bottleneck: {outcome.bottleneck.wall.value}"
            bars.update(task, doing=result, completed=1.0)
            if bars.disable:
                console.print(f"    {result}", highlight=False)
            findings.duration_s = time.monotonic() - began_s
            return outcome

        if plan.is_piloted:
            pilot = next(point for point in points if point.work is Work.CPU)
            title = f"a first point, which is discarded: {pilot.setting}"
            findings.discarded.append(measured(title, pilot, demand.pilot(), f"{findings.name}.first"))
        for number, point in enumerate(points, 1):
            if not budget.allows_another:
                findings.notes.append(
                    f"stopped after {findings.duration_s / 60:.1f} minutes of {plan.length.minutes_max:g}: "
                    f"{number - 1} of {len(points)} points measured, in shuffled order"
                )
                console.print(findings.notes[-1], highlight=False)
                break
            where_it_is = f"{point.partitions} partitions, {point.workers} workers"
            title = f"{number}/{len(points)} {plan.drive} {point.work}, {where_it_is}"
            findings.outcomes.append(measured(title, point, plan, findings.name))


def _show(bars: Progress, task: TaskID, doing: str, share: float) -> None:
    bars.update(task, doing=doing, completed=min(share, 0.99))


def _length(length: Length, **changes: float | None) -> Length:
    """The length with what was asked for otherwise; a `minutes_max` of 0 is none."""
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if given.get("minutes_max") == 0:
        given["minutes_max"] = None
    if "seconds" in given:
        given["step_s"] = min(length.step_s, given["seconds"])
    return replace(length, **given)


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(f"{option} must be numbers, as in 3,6,12; got {text!r}") from None


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
