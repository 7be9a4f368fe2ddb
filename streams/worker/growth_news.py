"""Implements `streams.worker.ports.GrowthNews` with Kafka: a thread that reads the growth topic.

As long as the flow was never grown that is all that it does. While a growth goes on it asks, twice a second, for what
the group has committed, and for the ends of partitions that somebody wants to know.
"""

import threading
from collections.abc import Mapping
from typing import Final

import structlog

from streams.clock import monotonic_ms
from streams.engine.telling import Ends
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.growth.committed import standing_of
from streams.growth.layout import Growth
from streams.growth.layouts import Layouts
from streams.growth.record import layouts_of
from streams.growth.stages import Standing, is_over
from streams.kafka.group_positions import GroupPositions
from streams.kafka.growth_topic import GrowthTopic
from streams.settings import Settings

log = structlog.get_logger(__name__)

_WAIT_S: Final = 0.5
_FAILED_WAIT_S: Final = 2.0
_ASK_INTERVAL_MS: Final = 500
_SETTLING_INTERVAL_MS: Final = 5_000
"""Once all that is left is that producers change: what is committed changes seldom."""


class KafkaGrowthNews:
    """News of the growth of one flow. `start` begins its thread, `close` ends it; other methods are for any thread."""

    def __init__(self, settings: Settings, pipeline: Pipeline, *, partitions: int) -> None:
        """`partitions`: the number that the flow's state is divided into if it was never grown."""
        self._topic = GrowthTopic(settings, pipeline)
        self._positions = GroupPositions(settings, group=pipeline.group, topics=[one.topic for one in pipeline.inputs])
        self._source = pipeline.source
        self._partitions = partitions
        self._layouts: Layouts | None = None
        self._standings: Mapping[int, Standing] = {}
        self._wanted: frozenset[int] = frozenset()
        self._ends: Ends | None = None
        self._asked_ms: int | None = None
        self._noting = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{pipeline.name}-growth", daemon=True)

    def start(self) -> None:
        """Start the thread that reads the growth topic. Call it once."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, if it was started, and close the connection to the topic."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * _WAIT_S)
        self._topic.close()

    # --- GrowthNews -------------------------------------------------------------------------------------------------

    def layouts(self) -> Layouts | None:
        """The layouts of the flow; None: no growth is known."""
        return self._layouts

    def standings(self) -> Mapping[int, Standing]:
        """State of each partition in a growth, as the group has committed it."""
        return self._standings

    def want_ends(self, lanes: frozenset[int]) -> None:
        """Keep asking for the ends of these lanes of the inputs, and of no others."""
        self._wanted = lanes

    def ends(self) -> Ends | None:
        """The newest answer; None: there is none."""
        return self._ends

    # --- for a restore ----------------------------------------------------------------------------------------------

    def read(self) -> Layouts | None:
        """The layouts by the growth topic as it is now; None: the flow was never grown.

        Raises:
            StreamsError: no answer, or the topic holds something else.

        """
        self._topic.read()
        self._note()
        return self._layouts

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failed = ""
        while not self._stop.is_set():
            try:
                self._listen()
                failed = ""
            except StreamsError as error:
                if str(error) != failed:
                    failed = str(error)
                    log.warning("what becomes of the growth of a flow is not known", topic=self._source, error=failed)
                self._stop.wait(_FAILED_WAIT_S)
        self._positions.close()

    def _listen(self) -> None:
        self._topic.wait(_WAIT_S)
        self._note()
        layouts = self._layouts
        growth = None if layouts is None else layouts.growth
        if growth is not None and self._is_due(growth):
            self._ask(growth)

    def _note(self) -> None:
        with self._noting:
            records = self._topic.records()
            layouts = layouts_of(records, self._partitions) if records else None
            if layouts == self._layouts:
                return
            self._layouts, self._asked_ms = layouts, None
        growth = None if layouts is None else layouts.growth
        if layouts is not None and growth is not None:
            log.info(
                "the flow grows", topic=self._source, epoch=growth.epoch, before=growth.before.partitions,
                partitions=growth.after.partitions, phase=str(layouts.phase),
            )  # fmt: skip

    def _is_due(self, growth: Growth) -> bool:
        if self._asked_ms is None:
            return True
        standings = self._standings
        settled = [one for one in growth.parents if one in standings and standings[one].settled >= growth.epoch]
        if is_over(growth, standings, settled):
            return False
        interval_ms = _ASK_INTERVAL_MS if self._wanted or not _all_moved(growth, standings) else _SETTLING_INTERVAL_MS
        return monotonic_ms() - self._asked_ms >= interval_ms

    def _ask(self, growth: Growth) -> None:
        committed = self._positions.committed(range(growth.after.partitions))
        self._standings = {partition: standing_of(found) for partition, found in committed.items()}
        self._asked_ms = monotonic_ms()
        if wanted := self._wanted:
            offsets = self._positions.ends(wanted)
            self._ends = Ends(monotonic_ms(), offsets)


def _all_moved(growth: Growth, standings: Mapping[int, Standing]) -> bool:
    """Whether all children have their state, and no rows of their keys are left in the parents' tables."""
    return all(
        child in standings and standings[child].epoch >= growth.epoch and standings[child].cleared >= growth.epoch
        for child in growth.children
    )
