"""A Delta table as a target: rows, offsets and fence in one commit of the table.

Offsets and epochs are *application transactions* of the Delta protocol: a name and a version that a commit sets. Every
write sets both of its partitions, and `open` sets the next epoch in a commit without rows. Delta refuses a commit when
another one, made since the table was read, has set one of the same names. So a process that was taken over cannot
commit, and when it reads the table again it sees that the epoch is another's.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, SchemaMismatchError, TableNotFoundError

from streams.errors import UsageError
from streams.masking import PERSONAL_MASK, masked
from streams.object_stores import cause_of, refusal_of
from streams.sinks.delta.layout import DAY, DELETED, PARTITION, changes_of, missing_fields, schema_of, table_of
from streams.sinks.target import TakenOver, TargetBatch, TargetColumn, TargetMismatch, TargetUnavailable

Result = TypeVar("Result")

_OPTIONS: Final = {"max_retries": "3", "retry_timeout": "20s", "connect_timeout": "5s"}
"""Of connections to an object store: without these a store that hangs is known to be away after three minutes."""

OPEN_ATTEMPTS: Final = 20
"""Several processes of a sink open their partitions at the same time, each in a commit of its own."""


class DeltaTarget:
    """`sinks.target.Target` over one table."""

    def __init__(
        self,
        url: str,
        *,
        sink: str,
        topic_id: str,
        columns: Sequence[TargetColumn],
        key: Sequence[str] = (),
        day_of: str = "",
        storage_options: Mapping[str, str] | None = None,
        masks_values: bool = False,
    ) -> None:
        """The table at `url`, a folder or an address in an object store; the rest is as with `PostgresTarget`."""
        self._masks = masks_values
        self._url, self._key, self._day_of = url, tuple(key), day_of
        self._names = f"streams/{sink}/{topic_id}"
        self._columns, self._options = tuple(columns), options_of(url, storage_options)
        self._schema = schema_of(columns, day_of)
        self._table: DeltaTable | None = None
        self._epochs: dict[int, int] = {}

    # --- sinks.target.Target ----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the table, or compare the one that is there; add columns that it lacks."""
        self._call(self._prepare)

    def open(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Take partitions over, in a commit without rows."""

        def work() -> Mapping[int, int]:
            for attempt in range(OPEN_ATTEMPTS):
                table = self._fresh()
                epochs = {one: (table.transaction_version(self._epoch_of(one)) or 0) + 1 for one in partitions}
                marks = [Transaction(self._epoch_of(one), epoch) for one, epoch in epochs.items()]
                try:
                    self._append(table, self._schema.empty_table(), marks)
                except CommitFailedError:
                    if attempt == OPEN_ATTEMPTS - 1:
                        raise
                    continue
                self._epochs |= epochs
                return self._offsets(self._fresh(), partitions)
            raise AssertionError  # the last attempt returns or raises

        return self._call(work)

    def positions(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Where each of these stands."""

        def work() -> Mapping[int, int]:
            table = self._fresh()
            self._check(table, partitions)
            return self._offsets(table, partitions)

        return self._call(work)

    def write(self, batch: TargetBatch) -> None:
        """Rows, deletions and offsets in one commit."""

        def work() -> None:
            table = self._fresh()
            self._check(table, batch.offsets)
            marks = [Transaction(self._offset_of(one), offset) for one, offset in batch.offsets.items()]
            marks += [Transaction(self._epoch_of(one), self._epochs[one]) for one in batch.offsets]
            try:
                if self._key and (batch.rows.num_rows or batch.deleted):
                    self._merge(table, changes_of(batch, self._schema, self._key, self._day_of), marks)
                    if (
                        self._offsets(table, batch.offsets) != batch.offsets
                    ):  # nothing changed, so nothing was committed
                        self._append(table, self._schema.empty_table(), marks)
                else:
                    self._append(table, table_of(batch, self._schema, self._day_of), marks)
            except CommitFailedError:
                self._check(self._fresh(), batch.offsets)  # otherwise it is another commit, such as a compaction
                raise

        self._call(work)

    def release(self, partitions: Collection[int]) -> None:
        """Forget partitions that this process no longer writes."""
        for partition in partitions:
            self._epochs.pop(partition, None)

    def close(self) -> None:
        """Do nothing: there is no connection."""

    # --- the table --------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        if "://" not in self._url:
            Path(self._url).mkdir(parents=True, exist_ok=True)
        table = DeltaTable.create(
            self._url,
            Schema.from_arrow(self._schema),
            mode="ignore",
            partition_by=[DAY] if self._day_of else None,
            storage_options=self._options,
        )
        there = {field.name: _words(field.type) for field in table.schema().fields}
        fields = {field.name: field for field in Schema.from_arrow(self._schema).fields}
        missing = missing_fields(self._url, there, {name: _words(field.type) for name, field in fields.items()})
        partitioned = list(table.metadata().partition_columns)
        if partitioned != ([DAY] if self._day_of else []):
            raise TargetMismatch(
                f"the Delta table {self._url} is partitioned by {partitioned or 'nothing'}, the sink needs "
                f"{[DAY] if self._day_of else 'nothing'} (day_of): give the sink another path"
            )
        if missing:
            table.alter.add_columns([fields[name] for name in missing])
        self._table = None

    def _fresh(self) -> DeltaTable:
        """The table as it is now."""
        if self._table is None:
            self._table = DeltaTable(self._url, storage_options=self._options)
        else:
            self._table.update_incremental()
        return self._table

    def _append(self, table: DeltaTable, rows: pa.Table, marks: list[Transaction]) -> None:
        write_deltalake(table, rows, mode="append", commit_properties=CommitProperties(app_transactions=marks))

    def _merge(self, table: DeltaTable, changes: pa.Table, marks: list[Transaction]) -> None:
        """Rows of a lower partition than the one that is there change nothing: the key has moved."""
        columns = {f'"{name}"': f's."{name}"' for name in self._schema.names}
        newer = f's."{PARTITION}" >= t."{PARTITION}"'
        (
            table.merge(
                changes,
                " and ".join(f't."{name}" = s."{name}"' for name in self._key),
                source_alias="s",
                target_alias="t",
                commit_properties=CommitProperties(app_transactions=marks),
            )
            .when_matched_delete(f's."{DELETED}" and {newer}')
            .when_matched_update(columns, f'not s."{DELETED}" and {newer}')
            .when_not_matched_insert(columns, f'not s."{DELETED}"')
            .execute()
        )

    def _check(self, table: DeltaTable, partitions: Collection[int]) -> None:
        taken = [
            one
            for one in partitions
            if one not in self._epochs or table.transaction_version(self._epoch_of(one)) != self._epochs[one]
        ]
        if taken:
            raise TakenOver(taken)

    def _offsets(self, table: DeltaTable, partitions: Collection[int]) -> dict[int, int]:
        found = {one: table.transaction_version(self._offset_of(one)) for one in partitions}
        return {one: -1 if offset is None else offset for one, offset in found.items()}

    def _offset_of(self, partition: int) -> str:
        return f"{self._names}/{partition}"

    def _epoch_of(self, partition: int) -> str:
        return f"{self._names}/{partition}/epoch"

    def _call(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except (SchemaMismatchError, TableNotFoundError) as error:
            self._table = None
            raise TargetMismatch(f"the Delta table {self._url}: {words(error)}") from None
        except (DeltaError, OSError, pa.ArrowException) as error:
            self._table = None
            said = f"{type(error).__name__}: {PERSONAL_MASK}" if self._masks and _may_quote(error) else words(error)
            raise TargetUnavailable(f"Delta table {self._url}: {said}") from None


def _may_quote(error: BaseException) -> bool:
    """Whether an error may be about values of rows: one that is not about a file or a service."""
    return isinstance(error, pa.ArrowException) and not isinstance(error, OSError)


def options_of(url: str, options: Mapping[str, str] | None = None) -> dict[str, str] | None:
    """Options of the connection to a table; those given come first. Credentials are taken from the environment.

    Raises:
        UsageError: the address holds credentials.

    """
    if why := refusal_of(url):
        raise UsageError(f"the address of a Delta table: {why}")
    is_remote = "://" in url and not url.startswith("file://")
    return ({**_OPTIONS} if is_remote else {}) | dict(options or {}) or None


def words(error: BaseException) -> str:
    """The error in one line, without secrets."""
    if why := cause_of(error):
        return why
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return masked(first)


def _words(kind: Any) -> str:
    """A Delta type in a word or two."""
    return str(getattr(kind, "type", kind)) if type(kind).__name__ == "PrimitiveType" else str(kind)
