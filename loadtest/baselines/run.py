"""The worker and other Python stream processors, each draining the same traffic alone, one after the other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import loadtest
from loadtest.comparison import Bench
from loadtest.report import Run
from loadtest.subject import Subject
from streams.errors import StreamsError

CHECKOUT: Final = Path(loadtest.__file__).resolve().parent.parent
QUIX_PYTHON: Final = CHECKOUT / ".local" / "baselines" / "quix" / "bin" / "python"
QUIX: Final = "bench.quix"


def find_quix() -> Path:
    """The interpreter of Quix Streams' own environment.

    Raises:
        StreamsError: there is none.

    """
    if not QUIX_PYTHON.is_file():
        raise StreamsError(f"{QUIX_PYTHON} is missing: `make loadtest-baselines` makes the environment of Quix Streams")
    return QUIX_PYTHON


class Baselines(Bench):
    """One invocation on one stack: the worker, Faust, Quix Streams, as far as they are asked for."""

    def __init__(self, *arguments: object, quix_events: int, scenarios: frozenset[str]) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # those of a bench
        self._quix_events = quix_events
        self._scenarios = scenarios

    def runs(self) -> Iterator[Run]:
        """Measure one after the other; each result as soon as it is there."""
        if "worker" in self._scenarios:
            filled = self._fill(self._gps, self._gps.pipeline.source, self.options.events, "filling the topic")
            yield self._pipeline(self._gps, filled)
        if "faust" in self._scenarios:
            yield self._faust()
        if "quix" in self._scenarios:
            yield self._quix()

    def _quix(self) -> Run:
        for topic in (QUIX, f"{QUIX}.out"):
            self.offsets.create(topic, self.options.partitions)
        filled = self._fill(self._gps, QUIX, self._quix_events, "filling a share of it for Quix Streams")
        environment = {
            "BASELINE_BOOTSTRAP": self.bootstrap,
            "BASELINE_ID": QUIX,
            "BASELINE_DATA_DIR": str(self.folders.data / "quix"),
            "BASELINE_SOURCE": QUIX,
            "BASELINE_TARGET": f"{QUIX}.out",
            "BASELINE_SCHEMA": self._gps.schema,
            "BASELINE_SCHEMA_ID": str(self._gps.schema_id),
            "PYTHONPATH": str(CHECKOUT),
        }
        with Subject(
            "Quix Streams",
            ["-m", "loadtest.baselines.quix_baseline"],
            self.folders.logs / "quix.log",
            environment=environment,
            ready_line="now processing incoming messages",
            python=find_quix(),
        ) as subject:
            drain = self._drain(subject, QUIX, QUIX, self._quix_events)
        return self._run("bench-quix", drain, filled.rate)
