"""Charts of a load test as SVG and PNG, drawn offline (Vega-Lite by altair, rendered by vl-convert).

Every role has one colour in all charts. In SVG, text and lines have the colour of the page's text.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import altair as alt
import vl_convert

from loadtest.histograms import added, curve
from loadtest.measure import Outcome
from loadtest.plan import Work
from loadtest.sampler import Role, Series, Usage
from loadtest.scaling import NoLaw, Scaling
from loadtest.statistics import Spread
from loadtest.trial import USUAL

WIDTH: Final = 640
HEIGHT: Final = 260
SERIES_POINTS_MAX: Final = 240
PNG_SCALE: Final = 2.0
ROLE_COLOURS: Final = {
    "workers": "#2d7d9a", "broker": "#c97b2a", "generators": "#7a9a3c", "load test": "#8a6fb0",
    "unexplained": "#9aa3ab",
}  # fmt: skip
"""Colour of each user of the CPU in a chart, from the bottom of the stack to its top."""
MEASURED: Final = "#2d7d9a"
IDEAL: Final = "#9aa3ab"
PERCENTILE_COLOURS: Final = {"p50": "#7fb7c9", "p95": "#2d7d9a", "p99": "#c97b2a", "p999": "#b0413e"}
_ROLES: Final = {
    Role.WORKER: "workers", Role.BROKER: "broker", Role.GENERATOR: "generators", Role.HARNESS: "load test",
}  # fmt: skip
_TITLES: Final = {
    Work.CPU: ("bound by CPU (the flow alone)", "workers"),
    Work.DOWNSTREAM: ("bound by a downstream call", "partitions"),
}
_LINE_MAX: Final = 25


def scaling_chart(work: Work, rates: Mapping[int, Sequence[float]], law: Scaling | NoLaw) -> alt.LayerChart | None:
    """Throughput by what was varied: medians with lowest and highest, the ideal, and the law where there is one."""
    if len(rates) < 2:
        return None
    title, unit = _TITLES[work]
    fewest, most = min(rates), max(rates)
    spreads = {n: Spread.of(values) for n, values in rates.items()}
    measured = [
        {"n": n, "rate": each.median, "low": each.low, "high": each.high, "line": "measured"}
        for n, each in spreads.items()
    ]
    lines: list[dict[str, Any]] = [
        {"n": n, "rate": spreads[fewest].median / fewest * n, "line": "ideal"} for n in _steps(fewest, most)
    ]
    if isinstance(law, Scaling):
        lines += [
            {"n": n, "rate": law.rate(n), "line": "law" if n <= most else "law, beyond what was measured"}
            for n in (*_steps(fewest, most), *_steps(most, law.n_max))
        ]
    x = alt.X("n:Q", title=unit, scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=sorted(rates), format="d"))
    y = alt.Y("rate:Q", title="events/s", scale=alt.Scale(type="log"), axis=alt.Axis(format="~s"))
    names = ["measured", "ideal", "law", "law, beyond what was measured"]
    color = alt.Color(
        "line:N", title=None, legend=alt.Legend(orient="top"),
        scale=alt.Scale(domain=names, range=[MEASURED, IDEAL, MEASURED, MEASURED]),
    )  # fmt: skip
    dash = alt.StrokeDash(
        "line:N", title=None, legend=alt.Legend(orient="top"),
        scale=alt.Scale(domain=names, range=[[1, 0], [2, 3], [1, 0], [6, 4]]),
    )  # fmt: skip
    return alt.layer(
        alt.Chart(_values(lines)).mark_line().encode(x=x, y=y, color=color, strokeDash=dash),
        alt.Chart(_values(measured)).mark_rule(strokeWidth=3).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=color),
        alt.Chart(_values(measured)).mark_point(size=90, filled=True).encode(x=x, y=y, color=color),
    ).properties(title=f"throughput by {unit}, {title}", width=WIDTH, height=HEIGHT)


def latency_chart(outcomes: Sequence[Outcome], lateness_ms: int) -> alt.LayerChart | None:
    """Latency percentiles beside the rate at which they were measured; the wait for order is a line."""
    rows = [
        {"rate": trial.publish_rate, "ms": trial.latency_ms[name], "percentile": name, "setting": each.point.setting}
        for each in outcomes
        for trial in each.trials
        for name in PERCENTILE_COLOURS
        if name in trial.latency_ms
    ]
    if not rows:
        return None
    points = (
        alt.Chart(_values(rows))
        .mark_point(size=70, filled=True)
        .encode(
            x=alt.X("rate:Q", title="events/s sent", axis=alt.Axis(format="~s")),
            y=alt.Y("ms:Q", title="ms from due to visible", scale=alt.Scale(zero=True)),
            color=alt.Color(
                "percentile:N", title=None, legend=alt.Legend(orient="top"),
                scale=alt.Scale(domain=list(PERCENTILE_COLOURS), range=list(PERCENTILE_COLOURS.values())),
            ),
            shape=alt.Shape("setting:N", title=None),
        )
    )  # fmt: skip
    return alt.layer(*_lateness(lateness_ms), points).properties(title="latency by rate", width=WIDTH, height=HEIGHT)


def distribution_chart(outcomes: Sequence[Outcome], lateness_ms: int) -> alt.LayerChart | None:
    """Latency over percentiles, the tail spread out, all repetitions together; the wait for order is a line."""
    stored: dict[str, list[str]] = {}
    for each in outcomes:
        for trial in each.trials:
            if USUAL in trial.histograms:
                share = f" at {trial.share:.0%}" if trial.share else ""
                stored.setdefault(f"{each.point.setting}{share}", []).append(trial.histograms[USUAL])
    rows = [
        {"nines": 1 / max(1e-4, 1 - percentile / 100), "ms": value, "run": name}
        for name, texts in stored.items()
        for percentile, value in curve(added(texts))
    ]
    if not rows:
        return None
    labels = "{'1': '0%', '10': '90%', '100': '99%', '1000': '99.9%', '10000': '99.99%'}[datum.label] || ''"
    lines = (
        alt.Chart(_values(rows))
        .mark_line()
        .encode(
            x=alt.X(
                "nines:Q",
                title="percentile",
                scale=alt.Scale(type="log"),
                axis=alt.Axis(values=[1, 10, 100, 1000, 10000], format="d", labelExpr=labels),
            ),
            y=alt.Y("ms:Q", title="ms from due to visible"),
            color=alt.Color("run:N", title=None, legend=alt.Legend(orient="bottom", columns=2)),
        )
    )
    return alt.layer(*_lateness(lateness_ms), lines).properties(
        title="latency distribution", width=WIDTH, height=HEIGHT
    )


def _lateness(lateness_ms: int) -> list[alt.Chart]:
    """A line at the time for which workers wait for order, and what it is."""
    if not lateness_ms:
        return []
    base = alt.Chart(_values([{"ms": lateness_ms, "text": f"wait for order: {lateness_ms:,} ms"}]))
    y = alt.Y("ms:Q")
    return [
        base.mark_rule(color=IDEAL, strokeDash=[4, 4]).encode(y=y),
        base.mark_text(align="left", baseline="bottom", color=IDEAL, dx=4).encode(x=alt.value(0), y=y, text="text:N"),
    ]


def lag_chart(outcome: Outcome) -> alt.Chart | None:
    """Lag of each partition over time."""
    rows = [
        {"s": sample.at_s, "lag": lag, "partition": number}
        for sample in _thinned(outcome.series.samples)
        for number, lag in enumerate(sample.lag)
    ]
    if not rows:
        return None
    return (
        alt.Chart(_values(rows))
        .mark_area(interpolate="step")
        .encode(
            x=alt.X("s:Q", title="seconds"),
            y=alt.Y("lag:Q", title="records behind", stack="zero", axis=alt.Axis(format="~s")),
            color=alt.Color("partition:O", title="partition", scale=alt.Scale(scheme="viridis")),
        )
        .properties(title=f"{outcome.point.label}: lag by partition", width=WIDTH, height=HEIGHT * 2 // 3)
    )


def cpu_chart(outcome: Outcome) -> alt.Chart | None:
    """Cores in use over time, one band for each role: all workers are one."""
    rows = cores_by_role(outcome.series)
    if not rows:
        return None
    names = [name for name in ROLE_COLOURS if any(row["role"] == name for row in rows)]
    return (
        alt.Chart(_values(rows))
        .mark_area(interpolate="step")
        .encode(
            x=alt.X("s:Q", title="seconds"),
            y=alt.Y("cores:Q", title="cores", stack="zero"),
            color=alt.Color(
                "role:N", title=None, scale=alt.Scale(domain=names, range=[ROLE_COLOURS[name] for name in names])
            ),
            order="order:Q",
        )
        .properties(title=f"{outcome.point.label}: CPU by role", width=WIDTH, height=HEIGHT * 2 // 3)
    )


def cores_by_role(series: Series) -> list[dict[str, Any]]:
    """Rows for a chart: cores that each role has used between two samples, and what nobody known has used."""
    order = {name: place for place, name in enumerate(ROLE_COLOURS)}
    rows = []
    usage: Sequence[Usage] = _thinned(series.usage)
    for before, after in pairwise(usage):
        took_s = after.at_s - before.at_s
        used = dict.fromkeys(ROLE_COLOURS, 0.0)
        for name, cpu_s in after.cpu_s.items():
            # Of a process that has just begun, its time so far is what it has used since.
            used[_ROLES[series.roles[name]]] += (cpu_s - before.cpu_s.get(name, 0.0)) / took_s
        machine = (after.machine_s - before.machine_s) / took_s
        used["unexplained"] = max(0.0, machine - sum(used.values()))
        rows += [{"s": after.at_s, "cores": cores, "role": name, "order": order[name]} for name, cores in used.items()]
    return rows


def svg(chart: alt.TopLevelMixin) -> str:
    """The chart as an SVG element, in the colour of the text around it."""
    return str(vl_convert.vegalite_to_svg(_roomy(chart, "currentColor").to_dict()))


def png(chart: alt.TopLevelMixin) -> bytes:
    """The chart as an image on white."""
    return bytes(vl_convert.vegalite_to_png(_roomy(chart, "#1c2733", background="#fff").to_dict(), scale=PNG_SCALE))


def _roomy(chart: alt.TopLevelMixin, ink: str, background: str = "transparent") -> Any:
    """With room for a browser whose font is wider than the one that the text was measured with."""
    padding = {"left": 5, "top": 5, "bottom": 5, "right": 60}
    return (
        chart.configure(padding=padding, background=background)
        .configure_view(stroke=ink, strokeOpacity=0.2)
        .configure_title(color=ink)
        .configure_axis(labelColor=ink, titleColor=ink, domainColor=ink, tickColor=ink, gridColor=ink, gridOpacity=0.12)
        .configure_legend(
            labelColor=ink,
            titleColor=ink,
            labelLimit=0,
            titleLimit=0,
            columnPadding=40,
            symbolBaseFillColor=ink,
            symbolBaseStrokeColor=ink,
        )
    )


def _values(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    return alt.Data(values=list(rows))


def _steps(first: float, last: float) -> list[float]:
    return [first * (last / first) ** (step / (_LINE_MAX - 1)) for step in range(_LINE_MAX)]


def _thinned(samples: Sequence[Any]) -> Sequence[Any]:
    return samples[:: max(1, len(samples) // SERIES_POINTS_MAX)]
