"""Results of a load test or benchmark: one JSON file for machines, one page and one printed table for people."""

import html
import json
import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import psutil
import typer
from rich.console import Console
from rich.table import Table

from loadtest.oracle.compare import Report
from streams.errors import UsageError

LATEST: Final = "latest"
RESULTS: Final = Path(__file__).parent / "results"
"""Where results go unless `--results` names another folder; not under version control."""


ResultName = Annotated[str | None, typer.Option(help="Name of the result's folder; default: kind and time.")]
ResultsFolder = Annotated[Path, typer.Option("--results", help="Folder that results are stored in.")]


def describe_machine() -> dict[str, Any]:
    """What the figures were measured on; no host name."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        models = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    return {
        "cpu": cpu,
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average_at_start": [round(load, 2) for load in psutil.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def describe_commit() -> str:
    """The commit that was measured, and whether files differ from it; `unknown` outside of a checkout."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    asked = subprocess.run(
        [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"


_OPTIONAL: Final = (
    "operators_us_per_event", "window_rows", "ready_s", "restored_rows", "restored_rows_per_s",
    "latency_rate", "rss_mb_by_minute", "rss_spread", "repetition", "sustainable_rate", "steady_s",
    "latency_skewed_ms", "publish_delay_ms", "latency_counted", "latency_due", "broker_cpu_seconds_per_million",
)  # fmt: skip


@dataclass(slots=True)
class Run:
    """One run of one scenario; a figure that the scenario does not measure is None."""

    scenario: str
    partitions: int
    workers: int
    events: int
    publish_rate: float | None = None
    """Events per second put into the source."""
    consume_rate: float | None = None
    """Events per second taken out, output committed."""
    latency_ms: dict[str, float] | None = None
    lag_max: int | None = None
    cpu_seconds_per_million: float | None = None
    rss_mb_max: float | None = None
    oracle: dict[str, Any] | None = None
    events_per_cpu_second: float | None = None
    operators_us_per_event: dict[str, float] | None = None
    """Where the worker says its time went."""
    window_rows: int | None = None
    """Rows of windows that were written."""
    ready_s: float | None = None
    """From the start of a worker's process until it processes."""
    restored_rows: int | None = None
    """Rows of state (ids, held events, rows of keys) that it took from changelogs."""
    restored_rows_per_s: float | None = None
    latency_rate: float | None = None
    """Events per second at which latency was measured, where that is not the publish rate."""
    repetition: int | None = None
    """Number of this repetition among those of its setting, from 1."""
    sustainable_rate: float | None = None
    """The highest measured rate, events per second, at which lag did not grow by more than 1% of it."""
    steady_s: float | None = None
    """Seconds that `consume_rate` was measured over."""
    latency_skewed_ms: dict[str, float] | None = None
    """Latency of events of devices with wrong clocks; such events wait until the watermark has reached their time."""
    publish_delay_ms: dict[str, float] | None = None
    """From when a record was to be sent to when it was given to the producer; part of the latency."""
    latency_counted: int | None = None
    latency_due: int | None = None
    """Records whose latency was measured, and those for which it had to be."""
    broker_cpu_seconds_per_million: float | None = None
    rss_mb_by_minute: list[float] | None = None
    rss_spread: float | None = None
    """Largest over smallest minute after the warm-up, minus 1."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; optional breakdowns are left out where there are none."""
        values = {name: getattr(self, name) for name in self.__slots__}
        for name in _OPTIONAL:
            if values[name] is None:
                del values[name]
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}


@dataclass(slots=True)
class Results:
    """All results of one invocation of the load test."""

    name: str
    runs: list[Run] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=describe_machine)

    def run(self, scenario: str) -> Run | None:
        """The run of a scenario, if it took place."""
        return next((run for run in self.runs if run.scenario == scenario), None)

    def ratios(self) -> dict[str, float]:
        """Events per CPU-second of the worker over those of each reference; `_by_join`: of the worker that joins."""
        gps = self.run("bench-gps")
        found = {}
        pairs = [
            (name, gps, self.run(f"bench-{name.replace('_', '-')}"))
            for name in ("passthrough", "kafka_streams", "kafka_streams_warm", "faust", "quix")
        ]
        pairs.append(("passthrough_by_join", self.run("bench-join"), self.run("bench-passthrough")))
        pairs.append(("steady_kafka_streams", self.run("bench-steady"), self.run("bench-steady-kafka-streams")))
        for name, run, reference in pairs:
            if run and reference and run.events_per_cpu_second and reference.events_per_cpu_second:
                found[name] = round(run.events_per_cpu_second / reference.events_per_cpu_second, 3)
        return found

    def as_dict(self) -> dict[str, Any]:
        """The report's JSON document."""
        return {
            "runs": [run.as_dict() for run in self.runs],
            "ratios": self.ratios(),
            "scaling": {},
            "cost": {},
            "machine": self.machine,
        }

    def write(self, root: Path) -> Path:
        """Write `<name>/report.json` and `report.html` below `root`, point `latest` there; return the folder."""
        folder = root / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")
        (folder / "report.html").write_text(page(self), encoding="utf-8")
        point_to_latest(root, self.name)
        return folder


def named(name: str | None, kind: str) -> str:
    """Name of a result's folder: the given one, or the kind and the time of day.

    Raises:
        UsageError: it is not the name of a single folder, or it is `latest`, which is a link.

    """
    if name is None:
        return f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    if not name or name.startswith(".") or Path(name).name != name or name == LATEST:
        raise UsageError(f"--name {name!r}: one folder's name is needed, without '/' and not 'latest'; see --results")
    return name


def point_to_latest(root: Path, name: str) -> None:
    """Have `latest` point to a result that is stored directly below `root`."""
    fresh = root / f".latest-{os.getpid()}"
    fresh.symlink_to(name)
    fresh.replace(root / LATEST)


COLUMNS: Final = ("scenario", "events", "events/s", "events/CPU-s", "RSS MB", "oracle")
LATENCIES: Final = ("p50", "p95", "p99", "p999", "max")


def cells(run: Run) -> list[str]:
    """The run as a line of text cells, in the order of `COLUMNS`."""
    numbers = (run.consume_rate, run.events_per_cpu_second, run.rss_mb_max)
    shown = ["-" if number is None else f"{number:,.0f}" for number in numbers]
    judged = "-" if run.oracle is None else "wrong" if faults(run.oracle) else "exact"
    return [run.scenario, f"{run.events:,}", *shown, judged]


def faults(oracle: dict[str, Any]) -> str:
    """What is wrong, by name and count; empty when nothing is."""
    wrong = [f"{name.replace('_', ' ')} {oracle[name]:,}" for name in Report.FAULTS if oracle.get(name)]
    return ", ".join(wrong)


def print_results(console: Console, results: Results) -> None:
    """The table of runs, latencies, the worker's time per operator, and the ratios."""
    table = Table(title="one worker, exactly once", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in {"scenario", "oracle"} else "right", no_wrap=True)
    for run in results.runs:
        table.add_row(*cells(run))
    console.print(table)
    for run in results.runs:
        for text in notes(run):
            console.print(f"{run.scenario}: {text}", highlight=False)
    for name, ratio in results.ratios().items():
        console.print(f"events per CPU-second: {ratio:,.2f} times {name}", highlight=False)


def notes(run: Run) -> list[str]:
    """What else a run has shown, as lines of text."""
    lines = []
    if run.oracle and faults(run.oracle):
        lines.append(f"the oracle found: {faults(run.oracle)}")
    if run.latency_ms:
        shown = ", ".join(f"{name} {run.latency_ms[name]:,.0f}" for name in LATENCIES if name in run.latency_ms)
        lines.append(
            f"event to visible output at {run.latency_rate or run.publish_rate or 0:,.0f} events/s, ms: {shown}"
        )
    if run.operators_us_per_event:
        shown = ", ".join(f"{name} {micros:.2f}" for name, micros in run.operators_us_per_event.items())
        lines.append(f"time per operator, µs/event: {shown}")
    if run.window_rows is not None:
        lines.append(f"rows of windows: {run.window_rows:,}")
    if run.rss_mb_by_minute:
        shown = " ".join(f"{value:,.0f}" for value in run.rss_mb_by_minute)
        lines.append(f"RSS by minute, MB: {shown}; spread after the warm-up {run.rss_spread or 0:.1%}")
    if run.ready_s is not None:
        text = f"at work again {run.ready_s:.1f} s after its start, {run.restored_rows or 0:,} rows of state from Kafka"
        lines.append(text + (f", {run.restored_rows_per_s:,.0f}/s" if run.restored_rows_per_s else ""))
    return lines


def page(results: Results) -> str:
    """A page that needs nothing but itself."""
    peak = max((run.events_per_cpu_second or 0.0 for run in results.runs), default=0.0) or 1.0
    head = "".join(f"<th>{html.escape(column)}</th>" for column in (*COLUMNS, ""))
    rows = []
    for run in results.runs:
        width = 100 * (run.events_per_cpu_second or 0.0) / peak
        bar = f'<div class="bar" style="width:{width:.1f}%"></div>'
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells(run)) + f"<td>{bar}</td></tr>")
    ratios = "".join(f"<li>{ratio:,.2f} times {html.escape(name)}</li>" for name, ratio in results.ratios().items())
    lines = "".join(f"<li>{html.escape(f'{run.scenario}: {text}')}</li>" for run in results.runs for text in notes(run))
    on = html.escape(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in results.machine.items()))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(results.name)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{html.escape(results.name)}</h1><table><tr>{head}</tr>{''.join(rows)}</table>"
        f"<h2>Events per CPU-second of the worker</h2><ul>{ratios}</ul><ul>{lines}</ul><p>{on}</p></body></html>\n"
    )


STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1c2733}"
    "table{border-collapse:collapse}th,td{padding:.3rem .7rem;border-bottom:1px solid #d5dce3;text-align:right}"
    "th:first-child,td:first-child{text-align:left}td:last-child{width:14rem}.bar{height:.9rem;background:#2d7d9a}"
    "@media(prefers-color-scheme:dark){body{background:#14191f;color:#dfe6ec}th,td{border-color:#34404c}}"
)
