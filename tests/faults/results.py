"""Results of fault tests: a pytest plugin that collects them, and the table of them in three shapes."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from loadtest.oracle.compare import Report
from loadtest.report import describe_machine

PROPERTY: Final = "fault"
RESULTS: Final = Path(__file__).parent / "results"
PAGE: Final = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN: Final = "<!-- faults: begin (written by `python -m tests.faults --page`) -->"
END: Final = "<!-- faults: end -->"
COLUMNS: Final = (
    "row", "fault", "times", "events", "lost", "duplicated", "out of order", "table mismatches", "recovers in, s",
    "verdict",
)  # fmt: skip


@dataclass
class Summary:
    """Plugin: one line for each fault test."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    _verdicts: dict[str, str] = field(default_factory=dict)
    _durations_s: Counter[str] = field(default_factory=Counter)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._durations_s[report.nodeid] += report.duration  # type: ignore[assignment]
        if report.skipped:
            self._verdicts[report.nodeid] = f"not run: {_reason(report)}"
        elif report.failed:
            self._verdicts[report.nodeid] = "FAILED"
        found: Any = dict(report.user_properties).get(PROPERTY)
        if report.when == "teardown" and found is not None:
            verdict = self._verdicts.pop(report.nodeid, "survived")
            duration_s = round(self._durations_s[report.nodeid], 1)
            self.lines.append({**found, "verdict": verdict, "test": report.nodeid, "duration_s": duration_s})

    def add_earlier(self, folder: Path = RESULTS) -> None:
        """Keep an earlier run's lines of tests that did not run now."""
        file = folder / "faults.json"
        if file.exists():
            ran = {line["test"] for line in self.lines}
            earlier = json.loads(file.read_text(encoding="utf-8"))["faults"]
            self.lines += [line for line in earlier if line["test"] not in ran]

    def as_dict(self) -> dict[str, Any]:
        return {"machine": describe_machine(), "faults": self.lines}

    def cells(self) -> list[list[str]]:
        """The table's lines as text, by row."""
        return [_cells(line) for line in sorted(self.lines, key=lambda line: int(line["row"]))]

    def markdown(self) -> str:
        rows = [list(COLUMNS), ["--:", "---", *["--:"] * 7, "---"], *self.cells()]
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def text(self) -> str:
        rows = [list(COLUMNS), *self.cells()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        left = {1, len(COLUMNS) - 1}
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column in left else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )

    def write(self, folder: Path = RESULTS) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "faults.json").write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")
        (folder / "faults.md").write_text(self.markdown(), encoding="utf-8")
        return folder

    def write_page(self, page: Path = PAGE) -> None:
        """Replace the table between the markers."""
        text = page.read_text(encoding="utf-8")
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"{page} lacks the markers {BEGIN} and {END}")
        page.write_text(f"{before}{BEGIN}\n{self.markdown()}{END}{after}", encoding="utf-8")


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "skipped"


def _cells(line: dict[str, Any]) -> list[str]:
    report = line["report"]
    judged = ("lost", "duplicated", "out_of_order", "table_mismatches")
    numbers = ["-"] * 4 if report is None else ["-" if report[name] is None else f"{report[name]:,}" for name in judged]
    events = "-" if report is None else f"{report['events']:,}"
    recovery = line["recover_s"]
    shown = "-" if not recovery else f"{max(recovery):.1f}"
    others = [] if report is None else [name for name in Report.FAULTS if report[name] and name not in judged]
    verdict = "; ".join([line["verdict"], *(f"{name.replace('_', ' ')} {report[name]}" for name in others)])
    verdict = "; ".join([verdict, *line["notes"]])
    return [str(line["row"]), line["fault"], str(line["injected"]), events, *numbers, shown, verdict]
