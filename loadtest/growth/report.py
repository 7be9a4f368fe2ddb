"""The measurement of a growth as a report: `report.json`, a page with its picture, and a table for the terminal."""

import html
import json
from pathlib import Path
from typing import Any, Final

import altair as alt
from rich.console import Console
from rich.table import Table

from loadtest.charts import svg
from loadtest.growth.course import GrowthFigures
from loadtest.report import STYLE, Results, point_to_latest

_WIDTH: Final = 760
_HEIGHT: Final = 170


def write(figures: GrowthFigures, results: Results, root: Path) -> Path:
    """Write `report.json` and `report.html` below `root`; returns their folder."""
    folder = root / results.name
    folder.mkdir(parents=True, exist_ok=True)
    document = {**results.as_dict(), "growth": figures.as_dict()}
    (folder / "report.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(_page(figures, results), encoding="utf-8")
    (folder / "growth.svg").write_text(svg(picture(figures)), encoding="utf-8")
    point_to_latest(root, results.name)
    return folder


def print_figures(console: Console, figures: GrowthFigures) -> None:
    """The table of stretches, and what was gained."""
    table = Table(title=f"{figures.before} to {figures.after} partitions under load", title_justify="left")
    for column in ("", "sent/s", "consumed/s", "lag at most", "p50 ms", "p99 ms", "max ms"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for one in figures.stretches:
        latency = [f"{one.latency_ms.get(name, 0):,.0f}" for name in ("p50", "p99", "max")]
        table.add_row(one.name, f"{one.sent_rate:,.0f}", f"{one.consumed_rate:,.0f}", f"{one.lag_max:,}", *latency)
    console.print(table)
    for line in _lines(figures):
        console.print(line, highlight=False)


def _lines(figures: GrowthFigures) -> list[str]:
    verdict = figures.verdict
    rows_wrong = verdict.table_mismatches + verdict.rows_not_at_home + verdict.keys_with_two_rows
    wrong = (
        f"lost {verdict.lost}, doubled {verdict.duplicated}, out of order {verdict.out_of_order}, "
        f"late {verdict.late}, rejected {verdict.rejected}, rows wrong {rows_wrong}"
    )
    most = f"{figures.rate_before_max:,.0f} records/s before, {figures.rate_after_max:,.0f} after"
    return [
        f"at most {most}: {figures.gain:.2f} times",
        f"longest pause of any key: {figures.pause_ms_max:,.0f} ms beyond the median before the growth",
        f"keys moved: {figures.keys_moved:,}; records forwarded: {figures.forwarded:,}",
        f"oracle: {'exact' if verdict.ok else 'WRONG'} over {verdict.events:,} records: {wrong}",
        *verdict.details[:5],
        *figures.incidents,
    ]


def picture(figures: GrowthFigures) -> alt.VConcatChart:
    """Throughput, lag and latency over the time of the growth, in seconds from its traffic's beginning."""
    samples = figures.series.samples
    offset_s = figures.stretches[0].from_ms if figures.stretches else 0.0
    first_s = figures.sampled_at_s(offset_s)
    last_s = figures.sampled_at_s(figures.stretches[-1].until_ms if figures.stretches else 0.0)
    shown = [one for one in samples if first_s <= one.at_s <= last_s]
    step = 4  # samples of one point: a second
    flow = [
        {
            "s": later.at_s - first_s,
            "records": (later.done - earlier.done) / max(0.001, later.at_s - earlier.at_s),
            "lag": sum(later.lag),
        }
        for earlier, later in zip(shown[::step], shown[step::step], strict=False)
    ]
    times = [
        {"s": second, "ms": value, "line": name}
        for second, median, longest in figures.course
        for name, value in (("median", median), ("longest", longest))
    ]
    marks = [{"s": (one.from_ms - offset_s) / 1000, "name": one.name} for one in figures.stretches]
    x = alt.X("s:Q", title="seconds")
    rule = alt.Chart(_values(marks)).mark_rule(strokeDash=[4, 4], opacity=0.6).encode(x=x)
    name = alt.Chart(_values(marks)).mark_text(align="left", dx=4, dy=-_HEIGHT / 2 + 8).encode(x=x, text="name:N")
    charts = [
        alt.Chart(_values(flow)).mark_line().encode(x=x, y=alt.Y("records:Q", title="records/s committed")),
        alt.Chart(_values(flow)).mark_line().encode(x=x, y=alt.Y("lag:Q", title="records waiting")),
        alt.Chart(_values(times))
        .mark_line()
        .encode(x=x, y=alt.Y("ms:Q", title="ms until visible"), color=alt.Color("line:N", title=None)),
    ]
    return alt.vconcat(*(alt.layer(rule, name, one).properties(width=_WIDTH, height=_HEIGHT) for one in charts))


def _values(rows: list[dict[str, Any]]) -> alt.Data:
    return alt.Data(values=rows)


def _page(figures: GrowthFigures, results: Results) -> str:
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in _lines(figures))
    steps = "".join(
        f"<li>{(at - figures.began_ms) / 1000:.1f} s: {html.escape(step)}</li>" for at, step in figures.steps
    )
    on = html.escape(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in results.machine.items()))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(results.name)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{figures.before} to {figures.after} partitions under load</h1>{svg(picture(figures))}"
        f"<ul>{lines}</ul><h2>Steps of the command</h2><ul>{steps}</ul><p>{on}</p></body></html>\n"
    )
