"""The topics of tables, read to their ends: rows by key as the store has them, those of other operators with them."""

from collections.abc import Iterable, Mapping
from itertools import compress, groupby

from streams.engine.changelog_rows import FORGOTTEN_HEADER, RowReader, RowUnknown
from streams.engine.config import TaskConfig
from streams.engine.journal_chain import RestoreFailed
from streams.engine.log import LogRow
from streams.engine.newest_rows import NewestRows
from streams.engine.partition import PartitionState
from streams.engine.restore_context import RestoreContext
from streams.state.checkpoint import Checkpoint
from streams.state.identity import Identity
from streams.state.space import StoreSpace
from streams.state.store import WriteBatch


def replay_tables(context: RestoreContext, state: PartitionState, reached: Checkpoint) -> dict[str, int]:
    """Bring rows by key forward; returns the position after the last row of each topic."""
    positions: dict[str, int] = {}
    rows_of = _ChangelogRows(context.config, state, reached.identity)
    since = reached.identity.tables
    # A key that is forgotten is so in each table. Those with rows of all keys come last: what their later rows carry of
    # a forgotten key is not taken away again by the others.
    for topic in sorted(context.tables, key=lambda name: name not in reached.identity.partial):
        low, high = context.changelog.bounds(topic, context.partition)
        start = max(low, since.get(topic, 0), reached.tables_next.get(topic, low))
        newest = NewestRows(f"{topic}-{context.partition}")
        for rows in context.changelog.read(topic, context.partition, start, high):
            for is_forgotten, run in groupby(rows, _is_forgotten):
                same = list(run)
                if is_forgotten:
                    state.store.write(rows_of.forgotten(topic, newest.without(same)))
                else:
                    newest.take(same)
            context.on_rows(len(rows), 0)
            if newest.is_full:
                _write(context, state, rows_of, topic, newest)
        _write(context, state, rows_of, topic, newest)
        positions[topic] = high
    state.forget_keys()  # those of held events were loaded before the rows came
    for operator in state.operators.values():
        operator.rows_restored()
    return positions


def _write(
    context: RestoreContext, state: PartitionState, rows_of: "_ChangelogRows", topic: str, newest: NewestRows
) -> None:
    """Write the newest rows to the store, and begin again with none."""
    if not newest.rows:
        return
    try:
        batch = rows_of.batch(topic, newest.rows)
    except RowUnknown as error:
        raise RestoreFailed(
            f"{newest.where}: {error}: "
            f"written by another version, or by something else. Begin again with {context.rebuild('source')}"
        ) from None
    state.store.write(batch)
    context.on_rows(0, len(batch.puts) * newest.taken // len(newest.rows))
    newest.clear()


def _is_forgotten(row: LogRow) -> bool:
    return row.value is None and any(name == FORGOTTEN_HEADER for name, _ in row.headers or ())


class _ChangelogRows:
    """Records of table topics as rows for the store."""

    def __init__(self, config: TaskConfig, state: PartitionState, identity: Identity) -> None:
        self._home = state.home
        self._reader = RowReader(config.keyed, identity)
        self._spaces = {one.name: StoreSpace(state.store, one.part) for one in config.keyed}
        self._carried = [one.name for one in config.keyed if not one.is_table]

    def forgotten(self, topic: str, keys: Iterable[bytes]) -> WriteBatch:
        """The rows of keys in one table deleted, and what travels with them."""
        batch = WriteBatch()
        for name in (topic, *self._carried):
            self._spaces[name].delete(batch, keys)
        return batch

    def batch(self, topic: str, rows: Mapping[bytes, tuple[bytes, bytes | None]]) -> WriteBatch:
        """The row of each key, with those of other operators that it carries.

        A table in which a key has a row carries what is newest of it, and one of the tables has a row of every key.

        Raises:
            RowUnknown: a record is none of ours.

        """
        pairs = sorted(rows.items())  # what is in order is inserted faster
        keys, own = [key for key, _ in pairs], [value for _, (value, _) in pairs]
        owners = [key for key, (_, packed) in pairs if packed is not None]
        carried = [packed for _, (_, packed) in pairs if packed is not None]
        keys, own = self._kept(keys, own)
        owners, carried = self._kept(owners, carried)
        batch = WriteBatch()
        self._spaces[topic].put(batch, zip(keys, self._reader.own(topic, own), strict=True))
        for name, mine, found in self._reader.carried(owners, carried):
            self._spaces[name].put(batch, zip(mine, found, strict=True))
        return batch

    def _kept(self, keys: list[bytes], rows: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Without those of keys that are kept elsewhere."""
        kept = self._home.kept(keys)
        if kept is None:
            return keys, rows
        return list(compress(keys, kept.tolist())), list(compress(rows, kept.tolist()))
