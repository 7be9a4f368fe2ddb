"""What a Delta table holds."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from streams.errors import StreamsError
from streams.sink.reconcile.compare import HeldRow
from streams.sink.reconcile.held import plain_values, rows_of
from streams.sinks.delta.layout import OFFSET, PARTITION, schema_of, table_of
from streams.sinks.delta.target import options_of, words
from streams.sinks.target import TargetBatch, TargetColumn


class DeltaHeld:
    """A Delta table, in one version of it."""

    def __init__(
        self, url: str, *, sink: str, topic_id: str, columns: Sequence[TargetColumn], day_of: str = ""
    ) -> None:
        """Open its newest version.

        Raises:
            StreamsError: it cannot be had.

        """
        self._url, self._columns, self._names = url, tuple(columns), f"streams/{sink}/{topic_id}"
        self._schema = schema_of(columns, day_of)
        self._day_of = day_of
        try:
            self._table = DeltaTable(url, storage_options=options_of(url))
        except (DeltaError, OSError) as error:
            raise self._unread(error) from None

    def positions(self, partitions: Collection[int]) -> Mapping[int, int]:
        """As `Held`."""
        return {one: self._table.transaction_version(f"{self._names}/{one}") or 0 for one in partitions}

    def rows(self) -> Iterator[HeldRow]:
        """As `Held`."""
        names = [column.name for column in self._columns]
        try:
            dataset = self._table.to_pyarrow_dataset()
            for batch in dataset.to_batches(columns=[PARTITION, OFFSET, *names]):
                yield from self._of(pa.Table.from_batches([batch]))
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise self._unread(error) from None

    def plain(self, batch: TargetBatch) -> Iterator[HeldRow]:
        """As `Held`."""
        return self._of(table_of(batch, self._schema, self._day_of))

    def close(self) -> None:
        """As `Held`."""

    def _of(self, table: pa.Table) -> Iterator[HeldRow]:
        values = [plain_values(table.column(column.name), is_json=column.kind == "json") for column in self._columns]
        return rows_of(table.column(PARTITION).to_pylist(), table.column(OFFSET).to_pylist(), values)

    def _unread(self, error: Exception) -> StreamsError:
        return StreamsError(f"the Delta table {self._url} cannot be read: {words(error)}")
