"""What a load test has found: results, scaling, cost and comparison, as a table, a JSON document and a page."""

import html
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import altair as alt
from rich.console import Console
from rich.table import Table

from loadtest.charts import cpu_chart, distribution_chart, lag_chart, latency_chart, png, scaling_chart, svg
from loadtest.cost import Prices
from loadtest.measure import Outcome
from loadtest.plan import Plan, Work
from loadtest.report import STYLE, Run, describe_commit, describe_machine, faults, point_to_latest
from loadtest.scaling import NoLaw, Scaling, fit
from loadtest.statistics import Ratio, Spread, ratio
from loadtest.trial import Trial
from streams.errors import UsageError

COLUMNS: Final = (
    "scenario", "partitions", "workers", "runs", "events/s", "sustainable", "at events/s", "p50 ms", "p99 ms",
    "lag max", "events/CPU-s", "RSS MB", "oracle", "bottleneck",
)  # fmt: skip
_UNITS: Final = {Work.CPU: "worker", Work.DOWNSTREAM: "partition"}
"""What is varied."""


@dataclass(slots=True)
class Findings:
    """Outcomes of one invocation, in order."""

    name: str
    plan: Plan
    prices: Prices
    outcomes: list[Outcome] = field(default_factory=list)
    discarded: list[Outcome] = field(default_factory=list)
    """The first point, which says how much the others need."""
    machine: dict[str, Any] = field(default_factory=describe_machine)
    kafka: dict[str, str] = field(default_factory=dict)
    """What the broker says of its configuration, apart from defaults."""
    commit: str = field(default_factory=describe_commit)
    began_at: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S %Z"))
    duration_s: float = 0.0
    notes: list[str] = field(default_factory=list)

    def settings(self) -> dict[str, list[Outcome]]:
        """Repetitions of each setting, by what was varied."""
        found: dict[str, list[Outcome]] = {}
        for each in sorted(self.outcomes, key=lambda each: (each.point.work, each.point.n, each.point.repetition)):
            found.setdefault(each.point.setting, []).append(each)
        return found

    def rates(self, work: Work) -> dict[int, list[float]]:
        """Throughputs of all repetitions by what was varied: workers, or partitions."""
        found: dict[int, list[float]] = {}
        for each in self.outcomes:
            if each.point.work is work and each.run.consume_rate:
                found.setdefault(each.point.n, []).append(each.run.consume_rate)
        return dict(sorted(found.items()))

    def laws(self) -> dict[Work, Scaling | NoLaw]:
        """The scalability law of each kind of work that was measured, or why there is none."""
        return {
            work: fit([(n, rate) for n, rates in found.items() for rate in rates])
            for work in Work
            if (found := self.rates(work))
        }

    def ratios(self, work: Work) -> dict[int, Ratio]:
        """How many times as much as the smallest number each larger one brings."""
        found = self.rates(work)
        (_, fewest), *more = found.items() if found else [(0, [])]
        return {n: ratio(rates, fewest) for n, rates in more}

    def scaling_words(self) -> list[str]:
        """The answer in words, and what the laws say."""
        lines = []
        for work, law in self.laws().items():
            unit, few = _UNITS[work], min(self.rates(work))
            fewest = f"{few} {unit}s bring" if few > 1 else f"1 {unit} brings"
            lines += [
                f"{work}: {n} {unit}s bring {found.words()} what {fewest} (ideal: {n / few:.1f})"
                for n, found in self.ratios(work).items()
            ]
            lines.append(f"{work}: {_law_words(law, unit)}")
        return lines

    def costs(self, outcome: Outcome) -> dict[str, float]:
        """Price of a million events: of the CPU time of workers and broker, and of all cores for the time it took."""
        run = outcome.run
        seconds = {
            "workers": run.cpu_seconds_per_million,
            "broker": run.broker_cpu_seconds_per_million,
            "provisioned": 1e6 / run.consume_rate * self.machine["cores"] if run.consume_rate else None,
        }
        return {name: self.prices.of(value) for name, value in seconds.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """The report's JSON document."""
        return {
            "quick": self.plan.length.name != "full",
            "runs": [_run_dict(each) for each in self.outcomes],
            "discarded": [_run_dict(each) for each in self.discarded],
            "settings": [self._setting_dict(setting, each) for setting, each in self.settings().items()],
            "ratios": {},
            "scaling": {
                work.value: {
                    **law.as_dict(),
                    "varied": f"{_UNITS[work]}s",
                    "times_the_smallest": {str(n): found.as_dict() for n, found in self.ratios(work).items()},
                }
                for work, law in self.laws().items()
            },
            "words": self.scaling_words(),
            "cost": {
                "price_per_core_hour": self.prices.core_hour,
                "currency": self.prices.currency,
                "per_million_events": {
                    each.point.label: {name: float(f"{cost:.6g}") for name, cost in self.costs(each).items()}
                    for each in self.outcomes
                },
            },
            "machine": self.machine,
            "kafka": self.kafka,
            "commit": self.commit,
            "began_at": self.began_at,
            "duration_s": round(self.duration_s, 1),
            "notes": self.notes,
            "plan": {
                **asdict(self.plan),
                "drive": self.plan.drive.value,
                "works": [work.value for work in self.plan.works],
            },
        }

    def _setting_dict(self, setting: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        found: dict[str, Any] = {"setting": setting, "repetitions": len(outcomes)}
        for name in ("consume_rate", "sustainable_rate", "events_per_cpu_second", "lag_max", "rss_mb_max"):
            if values := _figures(outcomes, lambda run, name=name: getattr(run, name)):  # type: ignore[misc]  # its own name
                found[name] = Spread.of(values).as_dict()
        for name in ("p50", "p99", "p999"):
            if values := _figures(outcomes, lambda run, name=name: (run.latency_ms or {}).get(name)):  # type: ignore[misc]  # as above
                found[f"latency_ms_{name}"] = Spread.of(values).as_dict()
        return found

    def write(self, root: Path, *, earlier: Mapping[str, Any] | None = None) -> Path:
        """Write `report.json`, `report.html` and a chart below `root`, point `latest` there; return the folder."""
        folder = root / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")
        (folder / "report.html").write_text(self.page(earlier), encoding="utf-8")
        for work, law in self.laws().items():
            chart = scaling_chart(work, self.rates(work), law)
            if chart is not None:
                (folder / f"scaling-{work}.png").write_bytes(png(chart))
        point_to_latest(root, self.name)
        return folder

    def rows(self) -> list[list[str]]:
        """The table's lines as text, in the order of `COLUMNS`: one of each setting."""
        return [_cells(outcomes) for outcomes in self.settings().values()]

    def title(self) -> str:
        """The name, and what the run is worth."""
        kind = "full run" if self.plan.length.name == "full" else "quick run: a look, not a result"
        return f"{self.name} ({kind})"

    def sections(self, earlier: Mapping[str, Any] | None) -> dict[str, list[str]]:
        """What there is to say, by title; a section may be empty."""
        return {
            "Scaling": self.scaling_words(),
            "What is in the way": [f"{each.point.label}: {each.bottleneck.words}" for each in self.outcomes],
            "Rates and latency": [
                f"{each.point.label}: {line}" for each in self.outcomes for trial in each.trials
                for line in trial_words(trial, self.plan.lateness_ms)
            ],
            "Cost of a million events": self._cost_words(),
            "Compared": compared(self, earlier) if earlier else [],
            "Notes": [*self.notes, *(f"{each.point.label}: {note}" for each in self.outcomes for note in each.notes)],
            "How it was measured": self._circumstances(),
        }  # fmt: skip

    def page(self, earlier: Mapping[str, Any] | None) -> str:
        """A page that needs nothing but itself."""
        lateness_ms = self.plan.lateness_ms
        charts = [
            *(scaling_chart(work, self.rates(work), law) for work, law in self.laws().items()),
            latency_chart(self.outcomes, lateness_ms),
            distribution_chart(self.outcomes, lateness_ms),
        ]
        head = "".join(f"<th>{html.escape(column)}</th>" for column in COLUMNS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>" for cells in self.rows()
        )
        first, *others = self.sections(earlier).items()
        of_points = "".join(
            f"<details><summary>{html.escape(each.point.label)}: lag and CPU over time</summary>"
            f"{_figures_of([lag_chart(each), cpu_chart(each)])}</details>"
            for each in self.outcomes
        )
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{html.escape(self.name)}</title><style>{STYLE}{_STYLE}</style></head><body>"
            f'<h1>{html.escape(self.title())}</h1><div class="wide"><table><tr>{head}</tr>{rows}</table></div>'
            f"{_section(*first)}{_figures_of(charts)}{''.join(_section(*each) for each in others)}{of_points}"
            "</body></html>\n"
        )

    def _circumstances(self) -> list[str]:
        plan, length = self.plan, self.plan.length
        options = {**asdict(plan), **asdict(length), "drive": plan.drive.value, "works": ",".join(plan.works)}
        del options["length"], options["name"]
        points = f"{len(self.outcomes)} points measured, {len(self.discarded)} discarded before them"
        return [
            f"{self.began_at}, {self.duration_s / 60:.1f} minutes, commit {self.commit}",
            f"{length.repetitions} repetitions asked for, in shuffled order; {points}",
            ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in self.machine.items()),
            "options: " + ", ".join(f"{name} {value}" for name, value in options.items()),
            "Kafka: " + ", ".join(f"{name}={value}" for name, value in self.kafka.items()),
        ]

    def _cost_words(self) -> list[str]:
        lines = []
        for each in self.outcomes:
            parts = [f"{name} {self.prices.shown(cost)}" for name, cost in self.costs(each).items()]
            if not parts:
                continue
            lines.append(f"{each.point.label}: {', '.join(parts)}")
        if lines:
            lines.append(
                f"at {self.prices.core_hour:g} {self.prices.currency} a core-hour; workers and broker by the CPU time "
                "that they used, provisioned by all cores of this machine for the time that it took"
            )
        return lines


def trial_words(trial: Trial, lateness_ms: int) -> list[str]:
    """Lines about a rate that was sent, and about the latency at it."""
    share = "" if trial.share is None else f"at {trial.share:.0%}: "
    lines = [f"{share}{trial.words()}"]
    if trial.latency_ms:
        shown = ", ".join(f"{name} {value:,.0f}" for name, value in trial.latency_ms.items())
        lines.append(
            f"{share}latency at {trial.publish_rate:,.0f} events/s, ms: {shown}; {lateness_ms:,} of it are the wait "
            f"for order; {trial.counted_words()}"
        )
    for title, found in (
        ("of devices with wrong clocks", trial.latency_skewed_ms),
        ("of late events", trial.latency_late_ms),
        ("publish delay", trial.publish_delay_ms),
    ):
        if found:
            lines.append(f"{share}{title}, ms: {', '.join(f'{name} {value:,.0f}' for name, value in found.items())}")
    return lines


def _section(title: str, lines: Sequence[str]) -> str:
    """A list under a title; one that is long can be opened. Nothing where there is nothing to say."""
    if not lines:
        return ""
    items = f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>"
    if len(lines) > _LINES_SHOWN:
        return f"<details><summary>{html.escape(title)} ({len(lines)})</summary>{items}</details>"
    return f"<h2>{html.escape(title)}</h2>{items}"


def _figures_of(charts: Sequence[alt.TopLevelMixin | None]) -> str:
    return "".join(f"<figure>{svg(chart)}</figure>" for chart in charts if chart is not None)


def _run_dict(outcome: Outcome) -> dict[str, Any]:
    return {
        **outcome.run.as_dict(),
        "bottleneck": outcome.bottleneck.as_dict(),
        "notes": outcome.notes,
        "rates": [trial.as_dict() for trial in outcome.trials],
    }


def _figures(outcomes: Sequence[Outcome], of: Callable[[Run], float | None]) -> list[float]:
    return [float(value) for each in outcomes if (value := of(each.run)) is not None]


def _law_words(law: Scaling | NoLaw, unit: str) -> str:
    if isinstance(law, NoLaw):
        return f"no law: {law.why}"
    share = law.contention
    text = f"contention {share.value:.1%} ({share.low:.1%} to {share.high:.1%})"
    if law.coherency is not None:
        text += f", coherency {law.coherency.value:.3%} ({law.coherency.low:.3%} to {law.coherency.high:.3%})"
    text += f", fit within {law.error:.1%}"
    if law.ceiling is not None:
        return f"{text}; {law.ceiling:,.0f} events/s at most, with {law.peak_n:.0f} {unit}s"
    if law.peak_n is not None:
        return f"{text}; most with about {law.peak_n:.0f} {unit}s, where more was measured than the law gives"
    return f"{text}; no ceiling within {law.n_max:.0f} {unit}s, and nothing is said beyond"


def print_findings(console: Console, findings: Findings, *, earlier: Mapping[str, Any] | None) -> None:
    """The table, the scaling and the bottlenecks in words."""
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)  # of a file or a pipe nobody knows the width
    table = Table(title=findings.title(), title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in {"scenario", "oracle", "bottleneck"} else "right")
    for cells in findings.rows():
        table.add_row(*cells, style="bold red" if cells[COLUMNS.index("oracle")] == "wrong" else None)
    console.print(table)
    for title, lines in findings.sections(earlier).items():
        if lines:
            console.print(title, style="bold")
        for line in lines:
            if not line.startswith(_FOR_THE_PAGE):
                console.print(f"  {line}", highlight=False, markup=False)
    for outcome in findings.outcomes:
        if outcome.run.oracle and faults(outcome.run.oracle):
            console.print(f"  [bold red]{outcome.point.label}: the oracle found: {faults(outcome.run.oracle)}")


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
    """The median of each setting beside the earlier one of the same scenario, partitions and workers."""
    before: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for run in earlier["runs"]:
        before.setdefault((run.get("scenario"), run.get("partitions"), run.get("workers")), []).append(run)
    lines = []
    for setting, outcomes in findings.settings().items():
        runs = [outcome.run.as_dict() for outcome in outcomes]
        old = before.get((runs[0]["scenario"], runs[0]["partitions"], runs[0]["workers"]))
        if old is None:
            lines.append(f"{setting}: not in the earlier result")
            continue
        changes = []
        for name, label in _COMPARED.items():
            was, now = _median(old, name), _median(runs, name)
            if was and now:
                changes.append(f"{label} {was:,.0f} to {now:,.0f} ({now / was - 1:+.0%})")
        wrong = "; ".join(filter(None, (faults(run.get("oracle") or {}) for run in old)))
        words = ", ".join(changes) or "nothing to compare"
        lines.append(f"{setting}: {words}{f'; the earlier output was wrong: {wrong}' if wrong else ''}")
    if earlier.get("machine", {}).get("cpu") != findings.machine.get("cpu"):
        lines.append("the earlier result is from another machine: compare ratios, not figures")
    return lines


def _median(runs: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [run[name] for run in runs if run.get(name)]
    return statistics.median(values) if values else None


_LINES_SHOWN: Final = 12
_FOR_THE_PAGE: Final = ("options: ", "Kafka: ")
_WIDTH: Final = 200
_COMPARED: Final = {
    "consume_rate": "events/s", "events_per_cpu_second": "events/CPU-s", "lag_max": "lag", "rss_mb_max": "RSS MB",
}  # fmt: skip
_STYLE: Final = (
    "figure{margin:1.5rem 0}.wide{overflow-x:auto}td,th{white-space:nowrap}td:last-child{width:auto}"
    "svg{max-width:100%;height:auto}li{overflow-wrap:anywhere}summary{cursor:pointer;font-weight:600;margin:1rem 0}"
)
"""Charts take the page's colour of text, so that they can be read on a dark page, and shrink to a phone's width."""


def _cells(outcomes: Sequence[Outcome]) -> list[str]:
    first = outcomes[0]
    judged = [each.oracle.ok for each in outcomes if each.oracle is not None]
    verdict = "-" if not judged else "exact" if all(judged) else "wrong"
    walls = sorted({each.bottleneck.wall.value for each in outcomes})

    def spread(of: Callable[[Run], float | None]) -> str:
        values = _figures(outcomes, of)
        return Spread.of(values).words() if values else "-"

    numbers = [
        spread(lambda run: run.consume_rate),
        spread(lambda run: run.sustainable_rate),
        spread(lambda run: run.latency_rate),
        spread(lambda run: (run.latency_ms or {}).get("p50")),
        spread(lambda run: (run.latency_ms or {}).get("p99")),
        spread(lambda run: run.lag_max),
        spread(lambda run: run.events_per_cpu_second),
        spread(lambda run: run.rss_mb_max),
    ]
    point = first.point
    return [
        first.run.scenario, str(point.partitions), str(point.workers), str(len(outcomes)), *numbers, verdict,
        ", ".join(walls),
    ]  # fmt: skip
