"""Sends files to topics: rows are validated, none is sent twice, and a run that was killed continues.

result = ingest_file(settings, Path("positions.parquet"), "gps.positions.v1", IngestOptions(rebase_time=True))
"""

from streams.ingest.bad_rows import bad_row_json
from streams.ingest.chunks import BadRow, InputFormat
from streams.ingest.filling import LeftOut
from streams.ingest.job import IngestOptions, IngestProgress, IngestResult, Progress, ingest_file, ingest_files
from streams.ingest.reading import Reading, TimeUnit

__all__ = [
    "BadRow",
    "IngestOptions",
    "IngestProgress",
    "IngestResult",
    "InputFormat",
    "LeftOut",
    "Progress",
    "Reading",
    "TimeUnit",
    "bad_row_json",
    "ingest_file",
    "ingest_files",
]
