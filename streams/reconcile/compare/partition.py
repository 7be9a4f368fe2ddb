"""Everything of a partition's keys: what must have become of them against what the outputs hold. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from streams.reconcile.compare.events import Decode
from streams.reconcile.compare.key import KeyComparison
from streams.reconcile.compare.letters import compare_letters
from streams.reconcile.compare.seen import KeyOutputs, Scope, SeenLetter, SeenRow
from streams.reconcile.compare.tables import WrongRow, explain, unexplained
from streams.reconcile.differences import Findings
from streams.reconcile.model.history import History, KeyHistory
from streams.reconcile.plan import CheckPlan

EXPLAINED_MAX: Final = 100
"""Wrong rows of a table, of those that are compared in one go, of which the first event is looked for: that takes a
fold for each event of the key."""

Versions = Callable[[str, Iterable[bytes]], Mapping[bytes, Sequence[SeenRow]]]
"""All rows of some keys that a table's topic still has."""


def compare_partition(
    plan: CheckPlan,
    scope: Scope,
    history: History,
    outputs: Mapping[bytes, KeyOutputs],
    letters: Mapping[int, Sequence[SeenLetter]],
    decode: Decode,
    read_row: Callable[[bytes], dict[str, Any]],
    versions: Versions,
    added_at: Mapping[str, int],
) -> Findings:
    """Every difference.

    `letters` are by the offset of their records. `added_at`: tables by the offset from which on their rows count; above
    0 they were added to the flow later.
    """
    findings = Findings()
    comparison = KeyComparison(plan, scope, read_row, added_at)
    wrong: dict[str, list[WrongRow]] = defaultdict(list)
    nothing, no_outputs = KeyHistory(), KeyOutputs()
    for key in sorted({*history.keys, *outputs}):
        seen = outputs.get(key, no_outputs)
        for each in comparison.compare(key, history.keys.get(key, nothing), seen, decode, findings):
            wrong[each.topic].append(each)
    compare_letters(scope, history.rejects, letters, findings)
    for topic, rows in wrong.items():
        explained = rows[:EXPLAINED_MAX]
        known = versions(topic, [each.key for each in explained])
        for each in explained:
            findings.note(explain(each, known.get(each.key, ()), comparison.tables[topic], read_row, scope))
        for each in rows[EXPLAINED_MAX:]:
            findings.note(unexplained(each))
    for count, words in (
        (history.by_clock, "late events that are late because idle time moved their partition on"),
        (len(history.unproven), "of these, late events without a pause in the timestamps before them"),
        (history.refused, "events that an output refused: dead letters say so, the log does not"),
        (history.unknown_then, "dead letters of schemas that the registry did not know then, and knows now"),
    ):
        if count:
            findings.remarks[words] += count
    return findings
