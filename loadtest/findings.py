"""What a load test has found: results, scaling, cost and comparison, as a table, a JSON document and a page."""

import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from loadtest.charts import cpu_chart, distribution_chart, lag_chart, latency_chart, png, scaling_chart, svg
from loadtest.measure import Outcome
from loadtest.plan import Plan, Work
from loadtest.report import STYLE, describe_machine, faults, point_to_latest
from loadtest.scaling import Scaling, fit
from streams.errors import UsageError

COLUMNS: Final = (
    "scenario", "partitions", "workers", "events/s", "p50 ms", "p99 ms", "lag max", "events/CPU-s", "RSS MB", "oracle",
    "bottleneck",
)  # fmt: skip
CHART: Final = "scaling.png"


@dataclass(slots=True)
class Findings:
    """Outcomes of one invocation, in order."""

    name: str
    plan: Plan
    price_per_core_hour: float
    outcomes: list[Outcome] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=describe_machine)

    def laws(self) -> dict[Work, Scaling]:
        """The scalability law of each kind of work that has enough points."""
        found = {}
        for work in Work:
            points = [
                (each.point.partitions, each.run.consume_rate)
                for each in self.outcomes
                if each.point.work is work and each.run.consume_rate
            ]
            law = fit(points)
            if law is not None:
                found[work] = law
        return found

    def scaling_words(self) -> list[str]:
        """What the laws say, and how far the measured ends are apart."""
        lines = []
        for work, law in self.laws().items():
            (few, slow), (many, fast) = min(law.points), max(law.points)
            ceiling = f"{law.ceiling:,.0f} events/s at most" if law.ceiling != float("inf") else "no ceiling seen"
            lines.append(
                f"{work}: {fast / slow:.2f} times the throughput from {few} to {many} partitions; contention "
                f"{law.contention:.1%}, coherency {law.coherency:.3%} (fit within {law.error:.1%}): {ceiling}"
            )
        return lines

    def cost(self, outcome: Outcome) -> float | None:
        """Price of a million events, from the workers' CPU time."""
        seconds = outcome.run.cpu_seconds_per_million
        return None if seconds is None else seconds / 3600 * self.price_per_core_hour

    def as_dict(self) -> dict[str, Any]:
        """The report's JSON document."""
        runs = [
            {**each.run.as_dict(), "bottleneck": each.bottleneck.as_dict(), "notes": each.notes}
            for each in self.outcomes
        ]
        costs = {each.point.label: cost for each in self.outcomes if (cost := self.cost(each)) is not None}
        return {
            "runs": runs,
            "ratios": {},
            "scaling": {work.value: law.as_dict() for work, law in self.laws().items()},
            "cost": {
                "price_per_core_hour": self.price_per_core_hour,
                "per_million_events": {label: round(cost, 6) for label, cost in costs.items()},
            },
            "machine": self.machine,
            "plan": {
                **asdict(self.plan),
                "drive": self.plan.drive.value,
                "works": [work.value for work in self.plan.works],
            },
        }

    def write(self, root: Path, *, earlier: Mapping[str, Any] | None = None) -> Path:
        """Write `report.json`, `report.html` and the chart below `root`, point `latest` there; return the folder."""
        folder = root / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")
        (folder / "report.html").write_text(self.page(earlier), encoding="utf-8")
        chart = scaling_chart(self.outcomes, self.laws())
        if chart is not None:
            (folder / CHART).write_bytes(png(chart))
        point_to_latest(root, self.name)
        return folder

    def rows(self) -> list[list[str]]:
        """The table's lines as text, in the order of `COLUMNS`."""
        return [_cells(outcome) for outcome in self.outcomes]

    def page(self, earlier: Mapping[str, Any] | None) -> str:
        """A page that needs nothing but itself."""
        charts = [
            scaling_chart(self.outcomes, self.laws()),
            latency_chart(self.outcomes),
            distribution_chart(self.outcomes),
            *(chart(outcome) for outcome in self.outcomes for chart in (lag_chart, cpu_chart)),
        ]
        figures = "".join(f"<figure>{svg(chart)}</figure>" for chart in charts if chart is not None)
        head = "".join(f"<th>{html.escape(column)}</th>" for column in COLUMNS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>" for cells in self.rows()
        )
        on = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in self.machine.items())
        sections = {
            "Scaling": self.scaling_words(),
            "What is in the way": [f"{each.point.label}: {each.bottleneck.words}" for each in self.outcomes],
            "Cost of a million events": self._cost_words(),
            "Compared": compared(self, earlier) if earlier else [],
            "Notes": [f"{each.point.label}: {note}" for each in self.outcomes for note in each.notes],
        }
        texts = "".join(
            f"<h2>{title}</h2><ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>"
            for title, lines in sections.items()
            if lines
        )
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>{html.escape(self.name)}</title><style>{STYLE}{_STYLE}</style></head><body>"
            f'<h1>{html.escape(self.name)}</h1><div class="wide"><table><tr>{head}</tr>{rows}</table></div>'
            f"{texts}{figures}<p>{html.escape(on)}</p></body></html>\n"
        )

    def _cost_words(self) -> list[str]:
        return [
            f"{each.point.label}: {cost:.4f} at {self.price_per_core_hour:g} a core-hour "
            f"({each.run.cpu_seconds_per_million:.1f} CPU-seconds of the workers)"
            for each in self.outcomes
            if (cost := self.cost(each)) is not None
        ]


def print_findings(console: Console, findings: Findings, *, earlier: Mapping[str, Any] | None) -> None:
    """The table, the scaling and the bottlenecks in words."""
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)  # of a file or a pipe nobody knows the width
    table = Table(title=findings.name, title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in {"scenario", "oracle", "bottleneck"} else "right")
    for cells in findings.rows():
        table.add_row(*cells, style="bold red" if cells[COLUMNS.index("oracle")] == "wrong" else None)
    console.print(table)
    for line in findings.scaling_words():
        console.print(line, highlight=False)
    for outcome in findings.outcomes:
        console.print(f"{outcome.point.label}: {outcome.bottleneck.words}", highlight=False)
        for note in outcome.notes:
            console.print(f"  {note}", highlight=False)
        if outcome.run.oracle and faults(outcome.run.oracle):
            console.print(f"  [bold red]the oracle found: {faults(outcome.run.oracle)}")
    for line in compared(findings, earlier) if earlier else []:
        console.print(line, highlight=False)


def earlier_results(name: str, root: Path) -> dict[str, Any]:
    """The JSON document of an earlier result, by its path or its name below `root`.

    Raises:
        UsageError: there is none, or it cannot be read.

    """
    path = Path(name)
    if not path.exists():
        path = root / name
    if path.is_dir():
        path /= "report.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--compare: no earlier result {name!r}: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("runs"), list):
        raise UsageError(f"--compare: {path} is no report of a load test")
    return found


def compared(findings: Findings, earlier: Mapping[str, Any]) -> list[str]:
    """Each run beside the earlier one of the same scenario, partitions and workers."""
    before = {(run.get("scenario"), run.get("partitions"), run.get("workers")): run for run in earlier["runs"]}
    lines = []
    for outcome in findings.outcomes:
        run = outcome.run.as_dict()
        old = before.get((run["scenario"], run["partitions"], run["workers"]))
        if old is None:
            lines.append(f"{outcome.point.label}: not in the earlier result")
            continue
        changes = [
            f"{label} {old[field_name]:,.0f} to {run[field_name]:,.0f} ({run[field_name] / old[field_name] - 1:+.0%})"
            for field_name, label in _COMPARED.items()
            if old.get(field_name) and run.get(field_name)
        ]
        wrong = faults(old.get("oracle") or {})
        words = ", ".join(changes) or "nothing to compare"
        lines.append(f"{outcome.point.label}: {words}{f'; the earlier output was wrong: {wrong}' if wrong else ''}")
    if earlier.get("machine", {}).get("cpu") != findings.machine.get("cpu"):
        lines.append("the earlier result is from another machine: compare ratios, not figures")
    return lines


_WIDTH: Final = 150
_COMPARED: Final = {
    "consume_rate": "events/s", "events_per_cpu_second": "events/CPU-s", "lag_max": "lag", "rss_mb_max": "RSS MB",
}  # fmt: skip
_STYLE: Final = "figure{margin:1.5rem 0;overflow-x:auto}.wide{overflow-x:auto}svg{background:#fff;border-radius:6px}"


def _cells(outcome: Outcome) -> list[str]:
    run, point = outcome.run, outcome.point
    latency = run.latency_ms or {}
    judged = "-" if outcome.oracle is None else "exact" if outcome.oracle.ok else "wrong"
    numbers = (
        run.consume_rate, latency.get("p50"), latency.get("p99"), run.lag_max, run.events_per_cpu_second,
        run.rss_mb_max,
    )  # fmt: skip
    shown = ["-" if number is None else f"{number:,.0f}" for number in numbers]
    return [run.scenario, str(point.partitions), str(point.workers), *shown, judged, outcome.bottleneck.wall.value]
