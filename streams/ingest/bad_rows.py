"""Collects bad rows: counts them, keeps the first ones, writes all of them to a file."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

from streams.errors import StreamsError, UsageError
from streams.ingest.chunks import BadRow
from streams.ingest.inputs import Input
from streams.masking import PERSONAL_MASK

BAD_ROWS_SHOWN: Final = 20


@dataclass(slots=True)
class Bad:
    """The bad rows of a file: how many, and the first of them."""

    count: int = 0
    first: list[BadRow] = field(default_factory=list)

    def add(self, rows: Sequence[BadRow]) -> None:
        """Count rows, and keep them while there is room."""
        self.count += len(rows)
        self.first += rows[: max(0, BAD_ROWS_SHOWN - len(self.first))]


class BadRowFile:
    """Writes every bad row as one JSON object a line, to a file that appears whole or not at all (None: no file).

    The rows go to a temporary file beside it, which takes its place on a clean exit; after an exception the earlier
    file is as it was. Special files (/dev/stdout, a named pipe) are written directly.
    """

    def __init__(self, path: Path | None, inputs: Sequence[Input]) -> None:
        """Check that the path, under any name, is not one of the inputs.

        Raises:
            UsageError: it is.

        """
        self._path = path
        self._target: Path | None = None
        self._temporary: Path | None = None
        self._file: TextIO | None = None
        if path is None:
            return
        self._target = path.resolve()
        for one in inputs:
            if self._target == one.path.resolve() or (path.exists() and one.path.exists() and path.samefile(one.path)):
                raise UsageError(f"--bad-rows {path}: is the file that is read ({one.name}): name another one")

    def __enter__(self) -> Self:
        if self._target is None:
            return self
        try:
            if self._target.exists() and not self._target.is_file():
                self._file = self._target.open("w", encoding="utf-8", errors="backslashreplace")
            else:
                self._temporary = self._target.with_name(f".{self._target.name}.{os.getpid()}.tmp")
                self._file = self._temporary.open("w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UsageError(f"--bad-rows {self._path}: cannot be written: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        try:
            try:
                self._file.close()
            except OSError as failure:
                if kind is None:
                    raise self._failed(failure) from None
            if self._temporary is not None and self._target is not None and kind is None:
                try:
                    self._temporary.replace(self._target)
                except OSError as failure:
                    raise self._failed(failure) from None
        finally:
            if self._temporary is not None:
                with suppress(OSError):
                    self._temporary.unlink(missing_ok=True)

    def add(self, name: str, rows: Sequence[BadRow]) -> None:
        """Write rows of a file.

        Raises:
            StreamsError: it cannot be written, for example without room on the disk.

        """
        if self._file is None:
            return
        try:
            self._file.writelines(json.dumps(bad_row_json(row, name), default=str) + "\n" for row in rows)
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> StreamsError:
        return StreamsError(f"--bad-rows {self._path}: cannot be written: {error.strerror}")


def bad_row_json(row: BadRow, name: str, *, masks_values: bool = False) -> dict[str, Any]:
    """A bad row of a file for JSON output; `row` is the line where the format has lines.

    `masks_values`: rows hold personal data, which may be in any column where columns are shifted: of each only is told
    whether it has a value.
    """
    data = row.data
    if masks_values and isinstance(data, dict):
        data = {column: None if value is None else PERSONAL_MASK for column, value in data.items()}
    elif masks_values and data is not None:
        data = PERSONAL_MASK
    return {"file": name, "row": row.number, "reason": row.reason, "data": data}
