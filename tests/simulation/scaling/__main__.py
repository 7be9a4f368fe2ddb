"""`make simulate-scale`: the scenarios in figures, and as a picture for docs/scaling.md."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import altair as alt
import vl_convert

from tests.simulation.scaling.scenarios import ALL
from tests.simulation.scaling.world import Course, Scenario, World

POINTS_MAX = 300
COLOURS = {"replicas": "#2d7d9a", "arrivals": "#c97b2a", "lag": "#b0413e"}


def picture(runs: Sequence[tuple[Scenario, Course]]) -> str:
    """The courses as SVG: workers and arrivals in units of one worker's pace, and lag."""
    rows = []
    for scenario, course in runs:
        every = max(1, len(course.time_s) // POINTS_MAX)
        # Of lag and replicas the most of each stretch is shown: a short peak is what matters.
        values = []
        for begin in range(0, len(course.time_s), every):
            part = slice(begin, begin + every)
            hour = course.time_s[begin] / 3_600
            values += [
                {"hour": hour, "value": max(course.replicas[part]), "what": "workers"},
                {
                    "hour": hour,
                    "value": max(course.arrive[part]) / scenario.worker_rate,
                    "what": "arrivals / pace of one worker",
                },
                {"hour": hour, "value": max(course.lag_s[part]) / 60, "what": "lag, minutes"},
            ]
        scale = alt.Scale(
            domain=["workers", "arrivals / pace of one worker", "lag, minutes"],
            range=[COLOURS["replicas"], COLOURS["arrivals"], COLOURS["lag"]],
        )
        chart = alt.Chart(alt.InlineData(values=values), title=scenario.name, width=420, height=130)
        rows.append(
            chart.mark_line(interpolate="step-after").encode(
                x=alt.X("hour:Q", title="hours"),
                y=alt.Y("value:Q", title=None),
                color=alt.Color("what:N", title=None, scale=scale, legend=alt.Legend(orient="bottom")),
            )
        )
    whole = alt.concat(*rows, columns=2).configure(background="white")
    return str(vl_convert.vegalite_to_svg(whole.to_dict()))


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate the autoscaler against traffic.")
    parser.add_argument("--picture", type=Path, help="write the courses here, as SVG")
    options = parser.parse_args()
    runs = [(scenario, World(scenario).run()) for scenario in ALL]
    sys.stdout.write(f"{'scenario':28} {'workers':>9} {'changes':>8} {'lag max':>9} {'above 30 s':>11}\n")
    for scenario, course in runs:
        above = sum(lag > scenario.policy.lag_s_max for lag in course.lag_s) / len(course.lag_s)
        sys.stdout.write(
            f"{scenario.name:28} {min(course.replicas):>4}..{max(course.replicas):<3} {len(course.changes()):>8} "
            f"{max(course.lag_s):>7.0f} s {above:>10.1%}\n"
        )
    if options.picture:
        options.picture.write_text(picture(runs), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
