"""Brings files or a Delta table into a topic of the version, from which its history is read.

`streams ingest` does it: what converts becomes a record in the partition of its key, each row once however often the
process is killed. Files are sent in the order in which they are named, rows as they stand: events that are older than
those before by more than the flow's out-of-orderness are late, as in any topic. A Delta table has no order, so its rows
are sorted by event time, then sequence and id.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.ingest.job import IngestOptions, IngestProgress, IngestResult, ingest_files
from streams.masking import masked
from streams.object_stores import cause_of
from streams.settings import Settings

_GROUP_ROWS: Final = 100_000
_MEMORY_SHARE: Final = 0.5
"""Share of the memory setting that the columns of a table may use while they are sorted."""


def stage_files(
    settings: Settings, flow: Pipeline, paths: Sequence[str], mapping: Mapping[str, str],
    progress: Callable[[IngestProgress], None] | None,
) -> list[IngestResult]:  # fmt: skip
    """Send the rows of files to the topic that `flow` reads; a run after a killed one sends what is left.

    Raises:
        UsageError: no such file, column or format.
        StreamsError: a file or a broker fails; what was sent is not sent again.

    """
    options = IngestOptions(mapping=mapping)
    return ingest_files(settings, paths, flow.source, options, progress=progress, reader=flow)


def newest_version(url: str) -> int:
    """The version that a Delta table is in now.

    Raises:
        UsageError: no such table, or the extra for Delta is missing.

    """
    return int(_table(url).version())


def export_delta(settings: Settings, flow: Pipeline, url: str, version: int, folder: Path) -> Path:
    """A Parquet file of the rows that one version of a Delta table has, in the order of events.

    The same rows give the same file. One that is there from an earlier run is taken.

    Raises:
        UsageError: no such table or version, it has no column of the event time, or the extra for Delta is missing.
        StreamsError: it cannot be read, or is larger than what may be sorted in memory.

    """
    found = folder / f"delta-{version}.parquet"
    if found.exists():
        return found
    source = flow.inputs[0]
    table = _table(url, version)
    try:
        dataset = table.to_pyarrow_dataset()
        names = dataset.schema.names
        if source.time_field not in names:
            raise UsageError(f"{url} has no column {source.time_field}: its rows cannot be put into order")
        rows = _bounded(dataset.to_batches(), dataset.schema, settings, url)
    except (OSError, pa.ArrowException, _delta_error()) as error:
        raise StreamsError(f"{url}: version {version} cannot be read: {' '.join(str(error).split())}") from None
    order = [name for name in (source.time_field, source.sequence_field, source.id_field) if name in names]
    folder.mkdir(parents=True, exist_ok=True)
    partial = found.with_suffix(".partial")
    pq.write_table(rows.sort_by([(name, "ascending") for name in order]), partial, row_group_size=_GROUP_ROWS)
    partial.replace(found)
    return found


def _bounded(batches: Any, schema: pa.Schema, settings: Settings, url: str) -> pa.Table:
    bytes_max = int((settings.streams_memory_mb_max << 20) * _MEMORY_SHARE)
    kept: list[pa.RecordBatch] = []
    used = 0
    for batch in batches:
        kept.append(batch)
        used += batch.nbytes
        if used > bytes_max:
            raise StreamsError(
                f"{url} takes more than {bytes_max >> 20} MiB in memory, in which its rows are sorted: raise "
                "STREAMS_MEMORY_MB_MAX, or write it to files in the order of events and use --source files"
            )
    return pa.Table.from_batches(kept, schema)


def _table(url: str, version: int | None = None) -> Any:
    delta = _delta()
    try:
        return delta.DeltaTable(url, version=version)
    except delta.exceptions.TableNotFoundError:
        raise UsageError(f"{url}: there is no Delta table") from None
    except (OSError, ValueError, delta.exceptions.DeltaError) as error:
        raise StreamsError(f"{url}: {cause_of(error) or masked(' '.join(str(error).split()))}") from None


def _delta_error() -> type[Exception]:
    found: type[Exception] = _delta().exceptions.DeltaError
    return found


def _delta() -> Any:
    try:
        importlib.import_module("deltalake.exceptions")
        return importlib.import_module("deltalake")
    except ImportError as error:
        raise UsageError(f"--source delta needs more ({error.name}): pip install 'logistics-streams[delta]'") from None
