"""Dead letters of a micro-batch: rejected records, and events that an output refused."""

from collections.abc import Iterable

from streams.batch.records import Records
from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.engine.effects import PartitionEffects


def dead_letter(records: Records, reject: Reject, input_number: int) -> DeadLetter:
    """The dead letter of a rejected record; `reject.row` is its row in `records`."""
    row = reject.row
    return DeadLetter(
        reject=reject,
        partition=int(records.partition[row]),
        offset=int(records.offset[row]),
        timestamp_ms=int(records.timestamp_ms[row]),
        key=records.key[row],
        value=records.value[row],
        headers=None if records.headers is None else records.headers[row],
        input_number=input_number,
    )


def letters_of_refused(part: PartitionEffects, records: Records | None) -> Iterable[DeadLetter]:
    """Dead letters of events that an output has refused. The offset of a held event is not known: -1."""
    for refused in part.refused:
        events = refused.events
        for position, (row, message) in enumerate(zip(events.row.tolist(), refused.messages, strict=True)):
            yield DeadLetter(
                reject=Reject(row, Reason.REFUSED_BY_OUTPUT, message),
                partition=part.partition,
                offset=-1 if row < 0 or records is None else int(records.offset[row]),
                timestamp_ms=int(events.timestamp_ms[position]),
                key=events.key[position],
                value=events.value[position],
                headers=None if events.headers is None else events.headers[position],
                input_number=part.input_number if refused.input_number is None else refused.input_number,
            )
