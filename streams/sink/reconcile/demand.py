"""Records of a topic as rows that a target must hold: decoded and reduced as the sink does."""

from collections.abc import Iterator, Mapping

import numpy as np

from streams.batch.records import Records
from streams.sink.batches import Place, prepared
from streams.sink.decoding import RowDecoder
from streams.sink.reconcile.compare import Demanded, HeldRow, Reach
from streams.sink.reconcile.held import Held


class TopicRows:
    """Of one sink. One thread."""

    def __init__(self, decoder: RowDecoder, held: Held) -> None:
        self._decoder, self._held = decoder, held

    def take(self, demanded: Demanded, records: Records, reach: Reach) -> None:
        """Records of one partition: what the target has read is demanded, of the others the keys are noted.

        Raises:
            RegistryUnavailable: a schema is not known yet, and the registry does not answer.

        """
        is_read = records.offset < reach.read[int(records.partition[0])]
        if is_read.any():
            taken = records.take(np.flatnonzero(is_read))
            demanded.records += len(taken)
            self._demand(demanded, taken, {place: "" for place in _places(taken) if place in reach.letters})
        if demanded.shape.key and not is_read.all():
            self._note_later(demanded, records.take(np.flatnonzero(~is_read)))

    def _demand(self, demanded: Demanded, records: Records, without: Mapping[Place, str]) -> None:
        decoded = self._decoder.decode(records)
        made = prepared(records, decoded, demanded.shape.key, without=without)
        for row in self._held.plain(made.batch):
            demanded.take(row)
        partition = int(records.partition[0])
        for text in made.batch.deleted:
            demanded.delete(text, partition)
        for reject in (*decoded.rejects, *made.rejects):
            demanded.rejected[partition, int(records.offset[reject.row])] = reject.message

    def _note_later(self, demanded: Demanded, records: Records) -> None:
        made = prepared(records, self._decoder.decode(records), demanded.shape.key)
        rows: Iterator[HeldRow] = self._held.plain(made.batch)
        for row in rows:
            demanded.note_later(demanded.shape.key_of(row))
        for text in made.batch.deleted:
            demanded.note_later((text,))


def _places(records: Records) -> Iterator[Place]:
    yield from zip(records.partition.tolist(), records.offset.tolist(), strict=True)
