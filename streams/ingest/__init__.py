"""Files into topics: validated, idempotent, resumable.

result = ingest_file(settings, Path("positions.parquet"), "gps.positions.v1", rebase_time=True)
"""

from streams.ingest.job import IngestProgress, IngestResult, Progress, bad_row_json, ingest_file
from streams.ingest.readers import BadRow, InputFormat

__all__ = [
    "BadRow",
    "IngestProgress",
    "IngestResult",
    "InputFormat",
    "Progress",
    "bad_row_json",
    "ingest_file",
]
