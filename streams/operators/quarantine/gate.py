"""Device breakers over a micro-batch: which records are kept out, and how the others change their key's breaker.

Record by record and in log order, but only for keys that have a reject in the batch, or that are kept out already.
A replayed record that is rejected again says nothing about what its device sends now: it does not count.
Breakers go by the records' timestamps. A record whose timestamp is no time (ADR 16) neither counts nor is kept out.
"""

from collections.abc import Mapping

import numpy as np

from streams.avro.decoded import Decoded
from streams.batch.clock import Clock
from streams.batch.records import Records
from streams.batch.rejects import Reason, Reject
from streams.batch.replayed import is_replayed
from streams.operators.quarantine.breakers import DeviceBreakers

_MESSAGE = "too many records of this key were rejected in a short time: it is quarantined until one is clean again"


def quarantined_at_start(records: Records, breakers: Mapping[int, DeviceBreakers], clock: Clock) -> frozenset[int]:
    """Rows that are kept out by what came before the batch: they need not be decoded. `breakers` are by partition."""
    open_keys = {(number, key) for number, one in breakers.items() for key in one.open_keys}
    if not open_keys:
        return frozenset()
    open_keys -= _may_be_forgotten(records, breakers)
    found: set[int] = set()
    probed: set[tuple[int, bytes | None]] = set()
    partitions, timestamps = records.partition.tolist(), records.timestamp_ms.tolist()
    timed = clock.is_time(records.timestamp_ms).tolist()
    for row, (partition, key) in enumerate(zip(partitions, records.key, strict=True)):
        if key is None or (partition, key) not in open_keys or (partition, key) in probed:
            continue
        if timed[row] and breakers[partition].keeps_out(key, timestamps[row]):
            found.add(row)
        else:
            probed.add((partition, key))  # its outcome decides about the records after it
    return frozenset(found)


def _may_be_forgotten(records: Records, breakers: Mapping[int, DeviceBreakers]) -> set[tuple[int, bytes]]:
    """Keys that rejects of the batch may push out: their records are decoded, it decides record by record."""
    keys: dict[int, set[bytes]] = {}
    for partition, key in zip(records.partition.tolist(), records.key, strict=True):
        if key is not None:
            keys.setdefault(partition, set()).add(key)
    return {
        (number, key)
        for number, named in keys.items()
        for key in breakers[number].may_be_forgotten(named, len(records))
    }


def quarantine(
    records: Records, decoded: Decoded, skip: frozenset[int], breakers: Mapping[int, DeviceBreakers], clock: Clock
) -> Decoded:
    """Turn the records that are kept out into rejects, and update the breakers."""
    own = {reject.row: reject for reject in decoded.rejects}
    partitions = records.partition.tolist()
    concerned = {
        (partitions[row], key)
        for row in (*own, *skip)
        if (key := records.key[row]) is not None and breakers[partitions[row]].is_on
    }
    concerned |= {(number, key) for number, one in breakers.items() for key in one.open_keys}
    if not concerned:
        return decoded
    timestamps, timed = records.timestamp_ms.tolist(), clock.is_time(records.timestamp_ms).tolist()
    kept_out: list[int] = []
    for row, (partition, key) in enumerate(zip(partitions, records.key, strict=True)):
        if key is None or (partition, key) not in concerned:
            continue
        its = breakers[partition]
        if row in skip or (timed[row] and its.keeps_out(key, timestamps[row])):
            kept_out.append(row)
        elif row in own:
            if timed[row] and (records.headers is None or not is_replayed(records.headers[row])):
                its.rejected(key, timestamps[row])
        else:
            its.accepted(key)
    if not kept_out:
        return decoded
    for row in kept_out:
        own[row] = Reject(row, Reason.DEVICE_QUARANTINED, _MESSAGE)
    events = decoded.events.take(~np.isin(decoded.events.row, np.array(kept_out)))
    return Decoded(events, [own[row] for row in sorted(own)], decoded.unresolved, decoded.unexpected)
