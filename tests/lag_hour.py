"""An hour of consumer groups: how often each would wake somebody up, by the alert rules and by Burrow's verdicts.

Verdicts are ours, through all of the monitor but Kafka; alerts are those of deploy/prometheus/rules, evaluated by
promtool from what the monitor would have exported, before Alertmanager inhibits any of them.
`python -m tests.lag_hour` writes the table into docs/lag-verdicts.md.
"""

import itertools
import json
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ruamel.yaml import YAML

from streams.monitor.policies import BATCH_S
from streams.monitor.policy import Policy
from streams.monitor.status import Status
from tests.lag_histories import DOCUMENT, History, behind, grows

RULES: Final = Path(__file__).parents[1] / "deploy" / "prometheus" / "rules" / "streams.yml"
HOUR_S: Final = 3_600
INTERVAL_S: Final = 10
ALERTS: Final = ("NoProgress", "GroupFlapping", "LagGrowing", "RecordsLost", "LagRewind")
_100: Final = grows(100.0)
_BAD: Final = (Status.STOP, Status.STALL, Status.REWIND, Status.ERR)

Commits = list[tuple[float, int]]


@dataclass(frozen=True)
class Hour:
    """A group, and the alerts that it deserves: (alert, severity) and how often it begins to fire."""

    name: str
    history: History
    fires: dict[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counted:
    """What became of it."""

    fires: dict[tuple[str, str], int]
    burrow_bad: int
    """How often Burrow's verdict turned to STOP, STALL or REWIND."""
    burrow_warn: int


def every(seconds: int, lag_s: float = 0.0, *, from_s: int = -HOUR_S) -> Commits:
    """Commits every so many seconds of all that had come `lag_s` before."""
    return [(float(t), _100(t - lag_s)) for t in range(from_s, HOUR_S + 1, seconds)]


def alive_but(outages: Sequence[tuple[int, int]], every_s: int = 5) -> Commits:
    """Commits of all, but for outages (begin, end); after each the backlog is gone within half a minute."""
    commits = []
    for t in range(-600, HOUR_S + 1, every_s):
        if any(begin <= t < end for begin, end in outages):
            continue
        back = next((end for begin, end in outages if end <= t < end + 30), None)
        down = next((end - begin for begin, end in outages if end == back), 0)
        commits.append((float(t), _100(t) - (0 if back is None else int(100 * down * (1 - (t - back) / 30)))))
    return commits


def hour(name: str, commits: Commits, fires: dict[tuple[str, str], int] | None = None, **given: object) -> Hour:
    """A group that is watched from ten minutes (or `watched_s`) before the hour on."""
    told = {"watched_s": HOUR_S + 600.0, **given}
    history = History(name, _100, commits, Status.OK, Status.OK, "", until_s=HOUR_S, **told)  # type: ignore[arg-type]
    return Hour(name, history, fires or {})


_SLOW: Final = [(300 + 480 * k, 380 + 480 * k) for k in range(7)]
_QUICK: Final = [(100 * k, 100 * k + 10) for k in range(36)]


def _outside(outages: Sequence[tuple[int, int]], at: float) -> bool:
    return not any(begin <= at < end for begin, end in outages)


HOURS: Final = (
    hour("keeps up, commits every 5 s", every(5, 1.0, from_s=-600)),
    hour("healthy, commits every minute", every(60)),
    hour("healthy, commits every 5 minutes", every(300), watched_s=2.0 * HOUR_S),
    hour("healthy, works off batches of 15 minutes", every(900, 900.0), watched_s=2.0 * HOUR_S),
    hour("runs once a day, is declared to, and rests", behind(_100, lambda _: 0, from_s=-600, until_s=-300),
         owned=lambda t: t < -300, policy=Policy(batch_s=BATCH_S)),
    hour("crashes 7 times, is back after 80 s each time", alive_but(_SLOW), {("NoProgress", "page"): 7},
         owned=lambda t: _outside(_SLOW, t), member=lambda t: f"m{sum(end <= t for _, end in _SLOW)}"),
    hour("crashes every 100 s, is back after 10 s", alive_but(_QUICK), {("GroupFlapping", "ticket"): 1},
         owned=lambda t: _outside(_QUICK, t), member=lambda t: f"m{sum(end <= t for _, end in _QUICK)}"),
    hour("members come and go every 2 minutes, and it is a minute behind", every(5, 75.0, from_s=-600),
         {("GroupFlapping", "page"): 1, ("GroupFlapping", "ticket"): 1, ("LagGrowing", "ticket"): 1},
         member=lambda t: f"m{max(0, t) // 120}"),
    hour("dies after 10 minutes", alive_but([(600, HOUR_S + 1)]), {("NoProgress", "page"): 1},
         owned=lambda t: t < 610),
    hour("hangs after 10 minutes, still a member", alive_but([(600, HOUR_S + 1)]), {("NoProgress", "page"): 1}),
    hour("falls behind by a tenth", [(float(t), _100(t) - 10 * max(0, t)) for t in range(-600, HOUR_S + 1, 5)],
         {("LagGrowing", "ticket"): 1}),
)  # fmt: skip


def counted(hours: Sequence[Hour] = HOURS) -> dict[str, Counted]:
    """Starts of alerts and of Burrow's verdicts, by group."""
    fires = _fired(hours)
    found = {}
    for one in hours:
        verdicts = [one.history.burrow_at(at) for at in range(0, HOUR_S + 1, INTERVAL_S)]
        found[one.name] = Counted(fires[one.name], _starts(verdicts, _BAD), _starts(verdicts, (Status.WARN,)))
    return found


def _starts(verdicts: Sequence[Status], of: Sequence[Status]) -> int:
    pairs = itertools.pairwise([Status.OK, *verdicts])
    return sum(after in of and before not in of for before, after in pairs)


def _fired(hours: Sequence[Hour]) -> dict[str, dict[tuple[str, str], int]]:
    """Starts of each alert, by promtool: it prints the answer to a query that is not the one expected."""
    series = [line for number, one in enumerate(hours) for line in _series(f"g{number}", one.history)]
    firing = 'ALERTS{alertstate="firing",group!=""}'
    begun = f"({firing} unless {firing} offset {INTERVAL_S}s)"
    starts = f"sum by (group, alertname, severity) (count_over_time({begun}[{HOUR_S}s:{INTERVAL_S}s]))"
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{INTERVAL_S}s",
        "tests": [
            {
                "interval": f"{INTERVAL_S}s",
                "input_series": series,
                "promql_expr_test": [
                    {"expr": starts, "eval_time": f"{HOUR_S}s", "exp_samples": [{"labels": "none", "value": 0}]}
                ],
            }
        ],
    }
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "hour.yml"
        with path.open("w") as out:
            YAML(typ="safe").dump(test, out)
        done = subprocess.run(
            ["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False, timeout=600
        )
    return _parsed(done.stdout + done.stderr, hours)


def _parsed(told: str, hours: Sequence[Hour]) -> dict[str, dict[tuple[str, str], int]]:
    found: dict[str, dict[tuple[str, str], int]] = {one.name: {} for one in hours}
    _, got, samples = told.partition("got: ")
    if not got:
        raise AssertionError(f"promtool says nothing of what it got:\n{told}")
    for sample in filter(None, (part.strip() for part in samples.split("{")[1:])):
        labels, _, value = sample.partition("} ")
        pairs = {
            name.strip(): json.loads(text) for name, _, text in (part.partition("=") for part in labels.split(","))
        }
        name = hours[int(pairs["group"].removeprefix("g"))].name
        if pairs["alertname"] in ALERTS:
            found[name][pairs["alertname"], pairs["severity"]] = round(float(value.split()[0].rstrip(",")))
    return found


def _series(group: str, history: History) -> Iterator[dict[str, str]]:
    columns: dict[str, list[float]] = {}
    for at, told in history.watched(INTERVAL_S):
        if at < 0:
            continue
        values = {
            f'streams_lag_status{{group="{group}",topic="t",partition="0"}}': int(told.verdicts.status[0])
            if told
            else 0,
            f'kafka_consumergroup_group_max_lag_seconds{{group="{group}"}}': told.lag_s_max if told else 0.0,
            f'streams_lag_group_flaps{{group="{group}"}}': told.flaps_max if told else 0,
            f'streams_lag_group_batch{{group="{group}"}}': int(history.policy.batch_s is not None),
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    for name, found in columns.items():
        yield {"series": name, "values": " ".join(f"{value:g}" for value in found)}


def table(found: dict[str, Counted]) -> str:
    """A line for each group."""
    lines = [
        "| an hour of a group that | pages | tickets | Burrow: STOP, STALL or REWIND | Burrow: WARN |",
        "|---|---|---|---|---|",
    ]
    for name, one in found.items():
        by_severity: Counter[str] = Counter()
        for (_, severity), count in one.fires.items():
            by_severity[severity] += count
        said = {
            severity: ", ".join(
                f"{alert} {count}" for (alert, kind), count in sorted(one.fires.items()) if kind == severity
            )
            for severity in ("page", "ticket")
        }
        cells = [f"{by_severity[kind]}{f' ({text})' if (text := said[kind]) else ''}" for kind in ("page", "ticket")]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {one.burrow_bad} | {one.burrow_warn} |")
    return "\n".join(lines)


def written(text: str, found: dict[str, Counted]) -> str:
    """The document with the table as it should be."""
    begin, end = "<!-- hour: begin -->", "<!-- hour: end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{table(found)}\n{end}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8"), counted()), encoding="utf-8")
