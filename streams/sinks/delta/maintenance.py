"""Maintenance of a Delta table: merges small files, and removes files that no version needs any more."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from streams.errors import StreamsError, UsageError
from streams.sinks.delta.target import options_of, words

RETENTION_HOURS_MIN: Final = 1


@dataclass(frozen=True, slots=True)
class Compacted:
    """Result of a compaction."""

    files_before: int
    files_after: int
    version: int


def compact(url: str, storage_options: Mapping[str, str] | None = None) -> Compacted:
    """Put small files together, each partition's by itself. Rows stay as they are; sinks may write meanwhile.

    Raises:
        StreamsError: there is no such table, or a sink has changed the same files meanwhile: run it again.

    """
    try:
        table = DeltaTable(url, storage_options=options_of(url, storage_options))
        before = len(table.file_uris())
        table.optimize.compact()
        return Compacted(before, len(table.file_uris()), table.version())
    except CommitFailedError as error:
        raise StreamsError(
            f"{url}: a sink has changed the same files meanwhile: run it again ({words(error)})"
        ) from None
    except (DeltaError, OSError) as error:
        raise StreamsError(f"{url}: {words(error)}") from None


def vacuum(
    url: str, *, retention_hours: int, dry_run: bool, storage_options: Mapping[str, str] | None = None
) -> list[str]:
    """Remove files that no version of the last `retention_hours` needs; returns them. `dry_run`: only returns them.

    A reader of an older version, or one that has been reading for longer than that, misses them.

    Raises:
        UsageError: it is less than an hour: a file of a commit that is under way could go.
        StreamsError: there is no such table.

    """
    if retention_hours < RETENTION_HOURS_MIN:
        raise UsageError(f"files are kept for {RETENTION_HOURS_MIN} hour at least: one may be of a commit under way")
    try:
        table = DeltaTable(url, storage_options=options_of(url, storage_options))
        return table.vacuum(retention_hours, dry_run=dry_run, enforce_retention_duration=False)
    except (DeltaError, OSError) as error:
        raise StreamsError(f"{url}: {words(error)}") from None
