"""Everything of one key after the other: events, rows of tables, rows of windows."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from streams.flow.declaration import Window
from streams.reconcile.compare.events import Decode, compare_events
from streams.reconcile.compare.folded import TableFold, WindowFold
from streams.reconcile.compare.seen import KeyOutputs, Scope
from streams.reconcile.compare.tables import WrongRow, compare_row
from streams.reconcile.compare.windows import WindowComparison
from streams.reconcile.differences import Findings
from streams.reconcile.model.history import KeyHistory
from streams.reconcile.plan import CheckPlan


class KeyComparison:
    """Everything of one key after the other."""

    def __init__(self, plan: CheckPlan, scope: Scope, read_row: Callable[[bytes], dict[str, Any]],
                 added_at: Mapping[str, int]) -> None:  # fmt: skip
        self._scope, self._read_row = scope, read_row
        self.tables = {
            table.topic: TableFold(table.aggregate, plan.columns, plan.rules.fields, plan.symbols)
            for table in plan.tables
        }
        self._is_partial = {topic: added_at.get(topic, 0) > 0 for topic in self.tables}
        self._windows: list[tuple[Window, WindowComparison]] = [
            (window, WindowComparison(scope, window, WindowFold(window.aggregate, plan.columns), read_row))
            for window in plan.windows
        ]

    def compare(
        self,
        key: bytes,
        due: KeyHistory,
        seen: KeyOutputs,
        decode: Decode,
        findings: Findings,
    ) -> Iterable[WrongRow]:
        """Note what differs; returns rows that are to be explained."""
        scope = self._scope
        verdict = compare_events(scope, key, due, seen, decode, findings)
        wrong = [
            compare_row(
                scope, key, topic, fold, due.clean, seen.rows.get(topic), self._read_row, verdict, findings,
                was_forgotten=seen.was_forgotten, is_whole=scope.is_whole and not self._is_partial[topic],
            )
            for topic, fold in self.tables.items()
        ]  # fmt: skip
        if not (seen.was_forgotten or verdict.in_motion):
            for window, comparison in self._windows:
                rows = seen.windows.get(window.topic, [])
                comparison.compare(key, due.clean, rows, findings, is_whole=scope.is_whole)
        return [each for each in wrong if each is not None]
