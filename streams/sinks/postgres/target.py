"""A PostgreSQL table as a target: COPY, upsert, offsets and fence in one transaction.

The order within the transaction is part of the fence: rows first, offsets last. `advance` changes nothing for a
partition whose epoch is no longer ours, and then all of it is rolled back. A process that takes over waits for the
short time between `advance` and the commit of a living writer; the server ends one that hangs there
(`idle_in_transaction_session_timeout`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import psycopg
import structlog

from streams.errors import StreamsError
from streams.masking import masked
from streams.sinks.postgres.drift import ExistingColumn, missing_columns, require_key
from streams.sinks.postgres.refusal import Refusals, is_of_rows, is_of_schema, words
from streams.sinks.postgres.rows import awkward, csv_of, table_of, texts_of, unfit
from streams.sinks.postgres.statements import OFFSETS, Statements
from streams.sinks.target import (
    RowsRefused,
    TakenOver,
    TargetBatch,
    TargetColumn,
    TargetMismatch,
    TargetUnavailable,
)

Result = TypeVar("Result")

log = structlog.get_logger(__name__)

CONNECT_S_MAX: Final = 10
STATEMENT_MS_MAX: Final = 120_000
"""Statements that take longer are ended by the server: a frozen sink blocks others no longer than this."""
IDLE_MS_MAX: Final = 15_000
"""How long the server waits for a sink that is idle in a transaction."""
LOCK_MS_MAX: Final = 30_000
_CHUNK_BYTES: Final = 1 << 20
_SESSION: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_S_MAX,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "options": (
        f"-c statement_timeout={STATEMENT_MS_MAX} -c idle_in_transaction_session_timeout={IDLE_MS_MAX} "
        f"-c lock_timeout={LOCK_MS_MAX} -c timezone=UTC -c datestyle=ISO"
    ),
}
_LOCK: Final = 7_302_115_001
"""Advisory lock under which tables are created: several processes of a sink start at the same time."""
_COLUMNS: Final = (
    "select a.attname, format_type(a.atttypid, a.atttypmod), "
    "a.attnotnull and not a.atthasdef and a.attidentity = '' and a.attgenerated = '' "
    "from pg_attribute a where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped"
)
_UNIQUE: Final = (
    "select array(select a.attname::text from pg_attribute a where a.attrelid = i.indrelid "
    "and a.attnum = any(i.indkey::smallint[])) from pg_index i "
    "where i.indrelid = %s::regclass and i.indisunique and i.indpred is null and i.indexprs is null and i.indisvalid"
)


class PostgresTarget:
    """`sinks.target.Target` over one table."""

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        sink: str,
        topic: str,
        topic_id: str,
        table: str,
        columns: Sequence[TargetColumn],
        key: Sequence[str] = (),
        masks_values: bool = False,
    ) -> None:
        """Rows of `topic` into `table`; `key`: columns by which rows are told apart, none: every record is a row.

        Where the sink stands is kept in the table `streams_sinks` of the same schema, under the name `sink` and the id
        of the topic: one that was created again is read from its beginning. `url` may be a function that is asked for
        each connection: a password may change.
        """
        self._url = url if callable(url) else lambda: url
        self._sink, self._topic, self._topic_id = sink, topic, topic_id
        self._table, self._columns, self._key = table, tuple(columns), tuple(key)
        self._masks = masks_values
        self._sql = Statements(table, columns, key)
        self._connection: psycopg.Connection[Any] | None = None
        self._epochs: dict[int, int] = {}

    # --- sinks.target.Target ----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the tables, or compare the one that is there; add columns that it lacks.

        Raises:
            TargetMismatch: the table is not as the sink needs it, or is gone though records were written to it.

        """

        def work(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction():
                connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
                connection.execute(self._sql.create_offsets())
                name = self._sql.table.as_string(connection)
                self._require_not_gone(connection, name)
                connection.execute(self._sql.create())
                found = connection.execute(_COLUMNS, [name]).fetchall()
                there = {column: ExistingColumn(kind, must_be_given) for column, kind, must_be_given in found}
                for column in missing_columns(self._table, self._columns, there):
                    log.info(
                        "adding a column", table=self._table,
                        column=column if isinstance(column, str) else column.name,
                    )  # fmt: skip
                    connection.execute(self._sql.add(column))
                unique = [frozenset(row[0]) for row in connection.execute(_UNIQUE, [name]).fetchall()]
                require_key(self._table, self._key, unique)

        self._call(work)

    def _require_not_gone(self, connection: psycopg.Connection[Any], name: str) -> None:
        """Return unless the table is gone: an empty one in its place would lack all that was written before."""
        if connection.execute("select to_regclass(%s)", [name]).fetchone() != (None,):
            return
        written = connection.execute(self._sql.written(), [self._sink, self._topic_id]).fetchone()
        if written != (0,):
            raise TargetMismatch(
                f"table {self._table} is gone, and by {OFFSETS} this sink has written records of {self._topic} to it. "
                "Bring the table back; or, to have all records that the topic still has written again, delete rows of "
                f"{OFFSETS} with sink = '{self._sink}'"
            )

    def open(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Take partitions over: from now on nobody else writes rows of them."""
        wanted = sorted(partitions)

        def work(connection: psycopg.Connection[Any]) -> Mapping[int, int]:
            given = [self._sink, self._topic, self._topic_id, wanted]
            with connection.transaction():
                rows = connection.execute(self._sql.take_over(), given).fetchall()
            self._epochs.update({partition: epoch for partition, epoch, _ in rows})
            return {partition: offset for partition, _, offset in rows}

        return self._call(work)

    def positions(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Where each of these stands."""

        def work(connection: psycopg.Connection[Any]) -> Mapping[int, int]:
            given = [self._sink, self._topic_id, sorted(partitions)]
            with connection.transaction():
                rows = connection.execute(self._sql.stand(), given).fetchall()
            ours = {partition: offset for partition, epoch, offset in rows if epoch == self._epochs.get(partition)}
            if len(ours) < len(partitions):
                raise TakenOver(set(partitions) - ours.keys())
            return ours

        return self._call(work)

    def write(self, batch: TargetBatch) -> None:
        """Rows, deletions and offsets in one transaction."""
        if refused := unfit(batch, self._columns):
            raise RowsRefused(refused)
        unknown = batch.offsets.keys() - self._epochs.keys()
        if unknown:
            raise TakenOver(unknown)
        self._call(lambda connection: self._write(connection, batch))

    def release(self, partitions: Collection[int]) -> None:
        """Forget partitions that this process no longer writes."""
        for partition in partitions:
            self._epochs.pop(partition, None)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # --- writing ----------------------------------------------------------------------------------------------------

    def _write(self, connection: psycopg.Connection[Any], batch: TargetBatch) -> None:
        table = table_of(batch, self._columns)
        try:
            with connection.transaction():
                self._put(connection, table, awkward(batch, self._columns))
                self._delete(connection, batch)
                self._advance(connection, batch.offsets)
        except psycopg.Error as error:
            if not is_of_rows(error):
                raise
            tried = partial(self._tried, connection, batch)
            raise Refusals(tried, masks_values=self._masks).found(batch, error) from None

    def _put(self, connection: psycopg.Connection[Any], table: Any, apart: Any) -> None:
        if table.num_rows == 0:
            return
        if self._key:
            connection.execute(self._sql.stage())
        if len(apart):
            for row in texts_of(table, apart):
                connection.execute(self._sql.insert_one(), row)
            table = _without(table, apart)
        data = csv_of(table)
        with connection.cursor() as cursor, cursor.copy(self._sql.copy()) as copy:
            for start in range(0, len(data), _CHUNK_BYTES):
                copy.write(data[start : start + _CHUNK_BYTES])
        if self._key:
            connection.execute(self._sql.upsert())

    def _delete(self, connection: psycopg.Connection[Any], batch: TargetBatch) -> None:
        if batch.deleted and batch.deleted_partition is not None:
            connection.execute(self._sql.delete(), [list(batch.deleted), batch.deleted_partition.tolist()])

    def _advance(self, connection: psycopg.Connection[Any], offsets: Mapping[int, int]) -> None:
        wanted = sorted(offsets)
        given = [
            wanted, [self._epochs[one] for one in wanted], [offsets[one] for one in wanted], self._sink, self._topic_id,
        ]  # fmt: skip
        done = {row[0] for row in connection.execute(self._sql.advance(), given).fetchall()}
        if len(done) < len(wanted):
            raise TakenOver(set(wanted) - done)

    def _tried(self, connection: psycopg.Connection[Any], batch: TargetBatch, rows: Any) -> psycopg.Error | None:
        """The database's error for these rows alone; all changes are rolled back."""
        part = table_of(
            TargetBatch(batch.rows.take(rows), batch.partition[rows], batch.offset[rows], {}), self._columns
        )
        try:
            with connection.transaction(force_rollback=True):
                self._put(connection, part, range(part.num_rows) if part.num_rows == 1 else ())
        except psycopg.Error as error:
            if not is_of_rows(error):
                raise
            return error
        return None

    # --- the connection ---------------------------------------------------------------------------------------------

    def _call(self, work: Callable[[psycopg.Connection[Any]], Result]) -> Result:
        connection: psycopg.Connection[Any] | None = None
        try:
            connection = self._connected()
            return work(connection)
        except psycopg.Error as error:
            if connection is not None and not isinstance(error, psycopg.errors.UniqueViolation):
                self._drop(connection)
            if is_of_schema(error):
                raise TargetMismatch(f"table {self._table}: {words(error, masks_values=self._masks)}") from None
            raise TargetUnavailable(f"PostgreSQL: {words(error, masks_values=self._masks)}") from None

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._url(), autocommit=True, **_SESSION)
        return self._connection

    def _drop(self, connection: psycopg.Connection[Any]) -> None:
        """Close a connection that failed: the next call makes another one."""
        connection.close()
        self._connection = None


def check_url(url: str) -> None:
    """Return if the address of a database can be read.

    Raises:
        StreamsError: it cannot.

    """
    try:
        psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error as error:
        raise StreamsError(f"STREAMS_POSTGRES_URL cannot be read: {masked(str(error).strip())}") from None


def _without(table: Any, rows: Any) -> Any:
    keep = [True] * table.num_rows
    for row in rows:
        keep[int(row)] = False
    return table.filter(keep)
