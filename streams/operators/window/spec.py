"""Declarations of windows: tumbling ones, hopping ones as several tumbling ones, sessions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa

from streams.batch.columns import Objects
from streams.batch.rows import Rows
from streams.operators.fold.aggregate import WindowAggregate
from streams.operators.window.operator import GRACE_MS, WindowSpec
from streams.operators.window.sessions import Sessions
from streams.operators.window.windows import Windows
from streams.state.identity import Consequences, SettingsByName

SIZE_MS: Final = "size_ms"
GAP_MS: Final = "gap_ms"
ADVANCE_MS: Final = "advance_ms"


@dataclass(frozen=True)
class TumblingWindow(WindowSpec):
    """Declaration: events are folded by key and window of `size_ms` into rows of `topic`.

    Hopping windows, which begin every `advance_ms`, are as many of these as fit into their size, each a `phase`.
    """

    topic: str
    aggregate: WindowAggregate
    size_ms: int
    grace_ms: int
    advance_ms: int = 0
    """0: windows follow each other without overlap."""
    phase: int = 0
    """Windows begin so many times `advance_ms` after the multiples of their size."""

    @property
    def label(self) -> str:
        """The topic, and which of its windows these are."""
        return f"{self.topic}@{self.phase}" if self.phase else self.topic

    @cached_property
    def windows(self) -> Windows:
        """The implementation that folds and closes these windows."""
        offset_ms = self.phase * self.advance_ms
        return Windows(self.aggregate, size_ms=self.size_ms, grace_ms=self.grace_ms, offset_ms=offset_ms)

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """Length, grace, and how far windows are apart where that is less than their length."""
        advance = {ADVANCE_MS: self.advance_ms} if self.advance_ms else {}
        return {self.label: {SIZE_MS: self.size_ms, GRACE_MS: self.grace_ms, **advance}}

    def judge_change(self, bounds: Mapping[str, int], settings: SettingsByName) -> Consequences:
        """Another length, or distance, is refused; another grace counts for windows that open from now on."""
        del bounds
        found = settings.get(self.label)
        if found is None:
            return Consequences()
        if found.get(SIZE_MS) != self.size_ms:
            text = (
                f"windows of {self.topic} were {found.get(SIZE_MS)} ms long and are {self.size_ms} ms now: open ones "
                "cannot be continued. Declare them under a new topic"
            )
            return Consequences(refused=(text,))
        if found.get(ADVANCE_MS, 0) != self.advance_ms:
            text = (
                f"windows of {self.topic} began every {found.get(ADVANCE_MS) or self.size_ms} ms and begin every "
                f"{self.advance_ms or self.size_ms} ms now: open ones cannot be continued. Declare them under a new "
                "topic"
            )
            return Consequences(refused=(text,))
        return self.with_grace(settings, self.grace_ms)

    def table(self, keys: Objects, rows: Rows) -> pa.RecordBatch:
        """Public rows of closed windows."""
        start = np.ascontiguousarray(rows["start"])
        revision = np.ascontiguousarray(rows["revision"])
        return self.aggregate.table(keys, start, self.windows.end(start), revision, rows["state"])


@dataclass(frozen=True)
class SessionWindow(WindowSpec):
    """Declaration: events of a key that are at most `gap_ms` apart are folded into rows of `topic`."""

    topic: str
    aggregate: WindowAggregate
    gap_ms: int
    grace_ms: int

    @cached_property
    def windows(self) -> Sessions:
        """The implementation that folds and closes these sessions."""
        return Sessions(self.aggregate, gap_ms=self.gap_ms, grace_ms=self.grace_ms)

    @property
    def settings(self) -> Mapping[str, Mapping[str, int]]:
        """Gap and grace."""
        return {self.topic: {GAP_MS: self.gap_ms, GRACE_MS: self.grace_ms}}

    def judge_change(self, bounds: Mapping[str, int], settings: SettingsByName) -> Consequences:
        """Another gap is refused; another grace counts for sessions whose next event comes from now on."""
        del bounds
        found = settings.get(self.topic)
        if found is None:
            return Consequences()
        if found.get(GAP_MS) != self.gap_ms:
            text = (
                f"sessions of {self.topic} were over after {found.get(GAP_MS)} ms and are after {self.gap_ms} ms now: "
                "open ones cannot be continued. Declare them under a new topic"
            )
            return Consequences(refused=(text,))
        return self.with_grace(settings, self.grace_ms)

    def table(self, keys: Objects, rows: Rows) -> pa.RecordBatch:
        """Public rows of closed sessions."""
        start, last = np.ascontiguousarray(rows["start"]), np.ascontiguousarray(rows["last"])
        revision = np.ascontiguousarray(rows["revision"])
        return self.aggregate.table(keys, start, self.windows.end(last), revision, rows["state"])
