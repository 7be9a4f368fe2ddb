"""`make bench-paired BEFORE=REVISION`: throughput of ingest and replay, this checkout beside an earlier revision.

What differs from one hour to the next on a shared machine is larger than what a change costs. So both revisions do the
same work on one broker in turn (before, after, after, before, ...), and what is reported is the ratio within each pair.
Each trial runs the commands that users run, `streams ingest file` and `streams dlq replay`, from the files of its
revision, over topics of its own. The environment, and with it the versions of all dependencies, is this one for both.
Exit status: 0 measured, 1 it could not be, 100 measured, and the later revision is slower than `--ratio-min` allows.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from loadtest import clients
from loadtest.cluster import cluster, fresh_topics
from loadtest.program import run_to_the_end
from loadtest.report import RESULTS, ResultName, ResultsFolder, describe_machine, named
from logistics.flows.gps import GPS
from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.deadletters.letter.envelope import envelope_headers
from streams.errors import FoundSomething, StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.settings import Settings

ROOT: Final = Path(__file__).parents[1]
PARTITIONS: Final = 12
DEVICES: Final = 500
BEGIN_MS: Final = 1_700_000_000_000
TRIAL_S_MAX: Final = 1_800.0
WARM_UP: Final = -1
"""Pair of the trial that comes first and does not count: the broker has just started."""
CHECKOUT: Final = "."
"""Stands for the files as they are here, committed or not."""


class Work(StrEnum):
    """Which command's throughput is measured."""

    INGEST = "ingest"
    REPLAY = "replay"


class Side(StrEnum):
    """Which of the two revisions a trial runs."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a command."""

    work: Work
    side: Side
    pair: int
    records: int
    seconds: float
    """As the command counts them: without its start."""
    cpu_seconds: float
    """CPU time of the whole process, all its threads together."""

    @property
    def per_second(self) -> float:
        """Records a second."""
        return self.records / self.seconds if self.seconds else 0.0

    @property
    def per_cpu_second(self) -> float:
        """Records for each second of CPU time: what other work on the machine changes least."""
        return self.records / self.cpu_seconds if self.cpu_seconds else 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The pairs of one work; a ratio above 1: the later revision is faster."""

    work: Work
    before: list[Trial]
    after: list[Trial]

    @property
    def ratios(self) -> list[float]:
        """Records per CPU-second, after over before, of each pair."""
        return [b.per_cpu_second / a.per_cpu_second for a, b in zip(self.before, self.after, strict=True)]

    @property
    def wall_ratios(self) -> list[float]:
        """The same by records a second."""
        return [b.per_second / a.per_second for a, b in zip(self.before, self.after, strict=True)]

    @property
    def ratio(self) -> float:
        """Return the median of `ratios`."""
        return median(self.ratios)


def turns(pairs: int) -> list[tuple[int, Side]]:
    """Order of the trials: it alternates within the pairs, so that neither revision always has the warm cache."""
    orders = ([Side.BEFORE, Side.AFTER], [Side.AFTER, Side.BEFORE])
    return [(pair, side) for pair in range(pairs) for side in orders[pair % 2]]


def compared(trials: Iterable[Trial]) -> list[Comparison]:
    """The trials by work, in the order of their pairs."""
    ordered = sorted(trials, key=lambda trial: trial.pair)
    of = {side: [trial for trial in ordered if trial.side is side] for side in Side}
    return [
        Comparison(work, *([trial for trial in of[side] if trial.work is work] for side in Side))
        for work in Work
        if any(trial.work is work for trial in ordered)
    ]


def files_of(revision: str, directory: Path, root: Path = ROOT) -> Path:
    """The files of a revision of the repository `root`, written to `directory`; of `.`, where they are.

    Raises:
        UsageError: there is no such revision.

    """
    if revision == CHECKOUT:
        return root
    packed = subprocess.run(
        ["git", "-C", str(root), "archive", "--format=tar", revision], capture_output=True, check=False
    )
    if packed.returncode:
        raise UsageError(f"{revision!r}: {packed.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return directory


class Bench:
    """Runs trials of both revisions on one cluster."""

    def __init__(self, settings: Settings, trees: Mapping[Side, Path], scratch: Path, *, events: int, letters: int):
        """`trees`: the files of both revisions. Writes the file that is ingested."""
        self._settings = settings
        self._trees = trees
        self._letters = letters
        self._events = events
        self._file = scratch / "positions.parquet"
        self._scratch = scratch
        self._rows = positions(max(events, letters))
        pq.write_table(self._rows.slice(0, events), self._file)

    def trials(self, works: Sequence[Work], pairs: int) -> Iterator[Trial]:
        """All of them, one after the other, each over topics of its own; each work begins with one that warms up."""
        for work in works:
            for pair, side in [(WARM_UP, Side.BEFORE), *turns(pairs)]:
                prefix = f"paired-{os.getpid()}.{work}.{pair}.{side}."
                with fresh_topics(self._settings, GPS.name, prefix, PARTITIONS, keep=False) as (ours, pipeline):
                    if work is Work.INGEST:
                        arguments = ["ingest", "file", str(self._file), "--topic", pipeline.source]
                        yield self._trial(work, side, pair, ours, arguments, self._events)
                    else:
                        self._write_letters(ours, pipeline)
                        arguments = ["dlq", "replay", "--all", "--topic", pipeline.dlq, "--wait", "0", "--by", "bench"]
                        yield self._trial(work, side, pair, ours, arguments, self._letters)

    def _trial(
        self, work: Work, side: Side, pair: int, settings: Settings, arguments: Sequence[str], records: int
    ) -> Trial:
        told, cpu_s = self._run(self._trees[side], settings, arguments)
        done = told["sent" if work is Work.INGEST else "replayed"]
        if done != records:
            raise StreamsError(f"{side}: {work} of {records:,} records did {done:,}: {json.dumps(told)[:500]}")
        return Trial(work, side, pair, records, float(told["seconds"]), cpu_s)

    def _run(self, tree: Path, settings: Settings, arguments: Sequence[str]) -> tuple[dict[str, Any], float]:
        """What a command of these files says, and the CPU time that it took."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(tree),
            **settings.connection_environment(),
            "STREAMS_TOPIC_PREFIX": settings.streams_topic_prefix,
        }
        out, err = self._scratch / "stdout", self._scratch / "stderr"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "streams", *arguments, "--format", "json"],
                env=environment, cwd=self._scratch, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            )  # fmt: skip
            try:
                cpu_s = _cpu_seconds_of(process)
            except BaseException:
                process.kill()
                process.wait()
                raise
        if process.returncode:
            said = err.read_text(encoding="utf-8", errors="replace").strip()
            raise StreamsError(f"{tree}: `streams {' '.join(arguments[:2])}` ended with {process.returncode}: {said}")
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found, cpu_s

    def _write_letters(self, settings: Settings, pipeline: Pipeline) -> None:
        """Dead letters as a worker writes them; a replay does not decode their bytes."""
        producer = clients.producer(settings, {"enable.idempotence": True, "linger.ms": 20})
        reject = Reject(-1, Reason.UNKNOWN_SCHEMA, "no schema has the id 9999", 9_999)
        now_ms = time.time_ns() // 1_000_000
        ids = self._rows.column("event_id").to_pylist()[: self._letters]
        for offset, event_id in enumerate(ids):
            key, value = f"truck-{offset % DEVICES}".encode(), b"\0\0\0\x27\x0f" + event_id.encode() * 2
            letter = DeadLetter(reject, offset % PARTITIONS, offset // PARTITIONS, now_ms, key, value, None)
            headers: Any = envelope_headers(letter, source=pipeline.source, group=pipeline.group, now_ms=now_ms)
            while True:
                try:
                    producer.produce(pipeline.dlq, value, key, headers=headers, partition=letter.partition)
                except BufferError:
                    producer.poll(0.1)
                else:
                    break
        if left := producer.flush(60):
            raise StreamsError(f"{left} dead letters were not delivered")


def positions(count: int) -> pa.Table:
    """Rows that the flow of positions takes, the same ones at each call."""
    random = np.random.Generator(np.random.PCG64(1))
    number = np.arange(count)
    times = pa.array(BEGIN_MS + number * 1_000 // DEVICES, pa.timestamp("ms", "UTC"))
    high = random.integers(0, 1 << 62, count).tolist()
    return pa.table(
        {
            "event_id": [f"{one:016x}{place:08x}" for place, one in enumerate(high)],
            "device_id": [f"truck-{one}" for one in (number % DEVICES).tolist()],
            "sequence": number // DEVICES,
            "event_time": times,
            "latitude": random.uniform(47.0, 55.0, count),
            "longitude": random.uniform(6.0, 15.0, count),
            "speed_kmh": random.uniform(0.0, 90.0, count),
            "heading_deg": random.uniform(0.0, 359.0, count),
        }
    )


def _cpu_seconds_of(process: "subprocess.Popen[bytes]") -> float:
    """Wait for a process; its CPU time.

    Raises:
        StreamsError: it takes too long.

    """
    deadline_s = time.monotonic() + TRIAL_S_MAX
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return used.ru_utime + used.ru_stime
        if time.monotonic() > deadline_s:
            raise StreamsError(f"a trial has taken more than {TRIAL_S_MAX:g} s")
        time.sleep(0.02)


def table_of(comparisons: Sequence[Comparison]) -> Table:
    """Return the comparisons as a table to print."""
    table = Table("work", "pairs", "before /CPU-s", "after /CPU-s", "ratio", "of pairs", "ratio of records/s")
    for one in comparisons:
        before, after = (median(trial.per_cpu_second for trial in side) for side in (one.before, one.after))
        table.add_row(
            one.work, str(len(one.ratios)), f"{before:,.0f}", f"{after:,.0f}", f"{one.ratio:.3f}",
            f"{min(one.ratios):.3f} to {max(one.ratios):.3f}", f"{median(one.wall_ratios):.3f}",
        )  # fmt: skip
    return table


def command(
    *,
    before: Annotated[str, typer.Option(help="Revision of git that is measured beside the later one.")],
    after: Annotated[str, typer.Option(help="The later revision; a dot: the files as they are here.")] = CHECKOUT,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of trials for each work.")] = 5,
    events: Annotated[int, typer.Option(min=1, help="Events of the file that is ingested.")] = 500_000,
    letters: Annotated[int, typer.Option(min=1, help="Dead letters that are replayed.")] = 100_000,
    only: Annotated[list[Work] | None, typer.Option(help="Measure this work; may be repeated. Default: both.")] = None,
    ratio_min: Annotated[
        float, typer.Option(min=0, help="Exit status 100 where the ratio by CPU time is below, such as 0.97.")
    ] = 0.0,
    use_running: Annotated[
        bool, typer.Option("--use-running", help="The cluster of KAFKA_BOOTSTRAP_SERVERS, not a stack of its own.")
    ] = False,
    name: ResultName = None,
    root: ResultsFolder = RESULTS,
) -> None:
    """Measure ingest and replay of two revisions in turn; print the ratios and store them."""
    console = Console()
    name = named(name, "paired")
    trials: list[Trial] = []
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="streams-paired-", ignore_cleanup_errors=True) as scratch:
        here = Path(scratch)
        revisions = {Side.BEFORE: before, Side.AFTER: after}
        trees = {side: files_of(revision, here / side) for side, revision in revisions.items()}
        console.print("starting the stack")
        with cluster(here / "stack", use_running=use_running) as found:
            bench = Bench(found.settings, trees, here, events=events, letters=letters)
            for trial in bench.trials(only or list(Work), pairs):
                if trial.pair == WARM_UP:
                    continue
                trials.append(trial)
                console.print(
                    f"{trial.work} {trial.pair + 1}/{pairs} {trial.side}: {trial.per_second:,.0f} records/s, "
                    f"{trial.per_cpu_second:,.0f} per CPU-second"
                )
    comparisons = compared(trials)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "before": before,
        "after": after,
        "ratios": {one.work: round(one.ratio, 4) for one in comparisons},
        "ratios_of_pairs": {one.work: [round(ratio, 4) for ratio in one.ratios] for one in comparisons},
        "wall_ratios_of_pairs": {one.work: [round(ratio, 4) for ratio in one.wall_ratios] for one in comparisons},
        "trials": [asdict(trial) for trial in trials],
        "machine": machine,
    }
    (folder / "paired.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    console.print(table_of(comparisons))
    console.print(f"stored in {os.path.relpath(folder)}")
    slower = [one.work for one in comparisons if one.ratio < ratio_min]
    if slower:
        raise FoundSomething(f"slower than {ratio_min:g} of the revision before: {', '.join(slower)}")


def main() -> None:
    """Run the command line; whatever ends it, what it started is stopped."""
    run_to_the_end("paired", command)


if __name__ == "__main__":
    main()
