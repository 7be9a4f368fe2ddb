"""Charts of a load test as SVG and PNG, drawn offline (Vega-Lite by altair, rendered by vl-convert)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import vl_convert

from loadtest.measure import Outcome
from loadtest.plan import Work
from loadtest.sampler import Role
from loadtest.scaling import Scaling

WIDTH: Final = 640
HEIGHT: Final = 260
PROJECTED_BEYOND: Final = 4.0
"""The law is drawn up to this many times the largest measured number of partitions."""
SERIES_POINTS_MAX: Final = 240
PNG_SCALE: Final = 2.0
_TITLES: Final = {Work.CPU: "CPU-bound (the pipeline alone)", Work.DOWNSTREAM: "bound by a downstream call"}


def scaling_chart(outcomes: Sequence[Outcome], laws: Mapping[Work, Scaling]) -> alt.LayerChart | None:
    """Throughput by partitions: what was measured, and where the fitted law says it goes."""
    measured: list[dict[str, Any]] = [
        {"partitions": each.point.partitions, "rate": each.run.consume_rate, "work": _TITLES[each.point.work]}
        for each in outcomes
        if each.run.consume_rate
    ]
    if len({each["partitions"] for each in measured}) < 2:
        return None
    most = max(each["partitions"] for each in measured)
    law = [
        {
            "partitions": n,
            "rate": scaling.rate(n),
            "work": _TITLES[work],
            "kind": "fitted to what was measured" if n <= most else "projected, not measured",
        }
        for work, scaling in laws.items()
        for n in sorted({*_steps(1, most), *_steps(most, most * PROJECTED_BEYOND), most})
    ]
    x = alt.X("partitions:Q", title="partitions", scale=alt.Scale(type="log", base=2))
    y = alt.Y("rate:Q", title="events/s", axis=alt.Axis(format="~s"))
    color = alt.Color("work:N", title=None, legend=alt.Legend(orient="top"))
    layers: list[alt.Chart] = []
    if law:
        dash = alt.StrokeDash(
            "kind:N",
            title=None,
            legend=alt.Legend(orient="top"),
            scale=alt.Scale(domain=["fitted to what was measured", "projected, not measured"], range=[[1, 0], [6, 4]]),
        )
        layers.append(alt.Chart(_values(law)).mark_line().encode(x=x, y=y, color=color, strokeDash=dash))
    layers.append(alt.Chart(_values(measured)).mark_point(size=90, filled=True).encode(x=x, y=y, color=color))
    return alt.layer(*layers).properties(title="throughput by partitions", width=WIDTH, height=HEIGHT)


def latency_chart(outcomes: Sequence[Outcome]) -> alt.Chart | None:
    """Latency percentiles by partitions."""
    rows = [
        {
            "partitions": str(each.point.partitions),
            "ms": each.run.latency_ms[name],
            "percentile": name,
            "work": _TITLES[each.point.work],
        }
        for each in outcomes
        for name in ("p50", "p95", "p99")
        if each.run.latency_ms
    ]
    if not rows:
        return None
    return (
        alt.Chart(_values(rows))
        .mark_bar()
        .encode(
            x=alt.X("partitions:N", title="partitions", sort=None),
            xOffset="percentile:N",
            y=alt.Y("ms:Q", title="ms from due to visible"),
            color=alt.Color("percentile:N", title=None, legend=alt.Legend(orient="top")),
            column=alt.Column("work:N", title=None),
        )
        .properties(title="latency by partitions", width=WIDTH // 2 - 30, height=HEIGHT)
    )


def distribution_chart(outcomes: Sequence[Outcome]) -> alt.Chart | None:
    """Latency over percentiles, the tail spread out."""
    rows = [
        {"nines": 1 / max(1e-4, 1 - share / 100), "ms": value, "run": each.point.label}
        for each in outcomes
        for share, value in each.latency_curve
    ]
    if not rows:
        return None
    labels = "{'1': '0%', '10': '90%', '100': '99%', '1000': '99.9%', '10000': '99.99%'}[datum.label] || ''"
    return (
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
            color=alt.Color("run:N", title=None),
        )
        .properties(title="latency distribution", width=WIDTH, height=HEIGHT)
    )


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
    """Cores in use by each process over time; many workers are one band each."""
    roles = outcome.series.roles
    rows = [
        {"s": sample.at_s, "cores": cores, "process": name, "order": _ORDER[roles[name]]}
        for sample in _thinned(outcome.series.samples)
        for name, cores in sample.cpu_cores.items()
    ]
    if not rows:
        return None
    return (
        alt.Chart(_values(rows))
        .mark_area(interpolate="step")
        .encode(
            x=alt.X("s:Q", title="seconds"),
            y=alt.Y("cores:Q", title="cores", stack="zero"),
            color=alt.Color("process:N", title=None, sort=alt.EncodingSortField("order")),
            order="order:Q",
        )
        .properties(title=f"{outcome.point.label}: CPU by process", width=WIDTH, height=HEIGHT * 2 // 3)
    )


def svg(chart: alt.TopLevelMixin) -> str:
    """The chart as an SVG element."""
    return str(vl_convert.vegalite_to_svg(_roomy(chart).to_dict()))


def png(chart: alt.TopLevelMixin) -> bytes:
    """The chart as an image."""
    return bytes(vl_convert.vegalite_to_png(_roomy(chart).to_dict(), scale=PNG_SCALE))


def _roomy(chart: alt.TopLevelMixin) -> Any:
    """With room for a browser whose font is wider than the one that the text was measured with."""
    padding = {"left": 5, "top": 5, "bottom": 5, "right": 60}
    return chart.configure(padding=padding).configure_legend(labelLimit=0, titleLimit=0, columnPadding=40)


_ORDER: Final = {Role.WORKER: 0, Role.BROKER: 1, Role.GENERATOR: 2, Role.HARNESS: 3}


def _values(rows: list[dict[str, Any]]) -> alt.Data:
    return alt.Data(values=rows)


def _steps(first: float, last: float) -> list[float]:
    return [first * (last / first) ** (step / 24) for step in range(25)]


def _thinned(samples: Sequence[Any]) -> Sequence[Any]:
    return samples[:: max(1, len(samples) // SERIES_POINTS_MAX)]
