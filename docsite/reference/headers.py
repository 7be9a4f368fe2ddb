"""The reference of record headers: names from the code, and what each holds."""

from collections.abc import Iterable, Sequence

from docsite.reference.tables import code, table
from streams.avro import framing
from streams.batch import moved, replayed
from streams.batch.rejects import Reason
from streams.deadletters.letter import envelope, inspect
from streams.engine import changelog_rows, forwarded

DEAD_LETTERS: Sequence[tuple[str, str]] = (
    ("__streams.errors.exception", "`streams.` and the reason in capitals and small letters (KIP-1034)"),
    ("__streams.errors.message", "why, in words"),
    ("__streams.errors.stacktrace", "empty: a bad record is no error of the program"),
    ("__streams.errors.topic", "topic that the record was read from"),
    ("__streams.errors.partition", "its partition"),
    ("__streams.errors.offset", "its offset"),
    (envelope.DLQ_ID, "id of the dead letter: the same whenever the record is processed again"),
    (envelope.REASON, "one of the reasons below"),
    (envelope.ATTEMPT, "1 for the first failure, one more after each replay"),
    (envelope.GROUP, "consumer group that rejected it"),
    (envelope.SCHEMA_ID, "schema id that the record carries; empty if it carries none"),
    (envelope.FIRST_FAILED_AT, "milliseconds since 1970"),
    (envelope.APP_VERSION, "version of the program that rejected it"),
    (envelope.HISTORY, "what became of the attempts before, as JSON; only after a replay"),
)
OUTPUTS: Sequence[tuple[str, str]] = (
    ("late.reason", "of a late event: `late`, or `beyond_horizon` (older than the dedup horizon)"),
    ("late.by_ms", "how long after the watermark, or after the newest event of its key, it came"),
    (framing.SCHEMA_ID_HEADER, "schema id or GUID of the value, where a producer puts it into headers"),
    (replayed.REPLAYED, "of a replayed record in its source: the audit record of the replay"),
    (changelog_rows.OWN_HEADER, "private state of a row of a table, for a restore"),
    (changelog_rows.CARRIED_HEADER, "state of windows that travels with a row of a table"),
    (changelog_rows.FORGOTTEN_HEADER, "of the deletion of a row: the key was forgotten"),
    (moved.MOVED_HEADER, "of the deletion of a row: the key belongs to another partition since the topic was grown"),
    (forwarded.FROM_HEADER, "of a forwarded record: partition and offset of the source"),
    (forwarded.EPOCH_HEADER, "of a forwarded record: number of the layout of partitions"),
)


def page() -> str:
    """The page as Markdown."""
    return "\n".join(
        [
            "# Headers and reasons",
            "",
            "## Dead letters",
            "",
            "A dead letter is the record as it came: its key, its bytes, its own headers, and these after them.",
            "",
            *_names(DEAD_LETTERS),
            "## Outputs and changelogs",
            "",
            *_names(OUTPUTS),
            "## Reasons of dead letters",
            "",
            "In the order in which they are looked for.",
            "",
            *table(("reason", "meaning"), [(code(reason), inspect.IN_WORDS[reason]) for reason in Reason]),
        ]
    )


def _names(headers: Iterable[tuple[str, str]]) -> list[str]:
    return table(("header", "holds"), [(code(name), text) for name, text in headers])
