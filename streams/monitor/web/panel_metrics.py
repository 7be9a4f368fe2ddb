"""Collects the metrics of panels ahead of a scrape, so that no scrape waits for a broker that is away."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from streams.errors import StreamsError
from streams.monitor.exposition import label

log = structlog.get_logger(__name__)

AGE: Final = "streams_monitor_panel_age_seconds"
STOP_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class _Said:
    content: bytes
    at_s: float


class PanelMetrics:
    """Queries each source of metrics at every interval, each in a thread of its own, and keeps its last answer."""

    def __init__(self, sources: Mapping[str, Callable[[], bytes]], *, every_s: float) -> None:
        """`sources`: by name, such as the panel's path."""
        self._said: dict[str, _Said] = {}
        self._every_s = every_s
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(name, source), name=f"metrics of {name}", daemon=True)
            for name, source in sources.items()
        ]

    def start(self) -> None:
        """Start a querying thread for each source. Call it once."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop querying; a query that is running may take `STOP_S`, and is abandoned after that."""
        self._stop.set()
        deadline_s = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def content(self) -> bytes:
        """The last answers of all sources with their age, in Prometheus' text format.

        From any thread, without waiting.
        """
        said = sorted(self._said.items())
        now_s = time.monotonic()
        ages = [f'{AGE}{{panel="{label(name)}"}} {now_s - one.at_s:.3f}' for name, one in said]
        head = [f"# HELP {AGE} Time since the metrics of this panel were counted.", f"# TYPE {AGE} gauge"]
        return b"".join(one.content for _, one in said) + ("\n".join([*head, *ages, ""]).encode() if ages else b"")

    def _ask(self, name: str, source: Callable[[], bytes]) -> None:
        is_well = True
        while not self._stop.is_set():
            started_s = time.monotonic()
            try:
                self._said[name] = _Said(source(), time.monotonic())
                is_well = True
            except StreamsError as error:
                if is_well:
                    log.warning("metrics could not be counted; the last ones are served", panel=name, error=str(error))
                is_well = False
            except Exception:  # the next may succeed, and the other metrics do not depend on these
                log.exception("metrics could not be counted", panel=name)
            self._stop.wait(max(0.1, started_s + self._every_s - time.monotonic()))
