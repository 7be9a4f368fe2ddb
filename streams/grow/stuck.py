"""Which partitions of a flow are not processed, by two rounds of offsets; a growth does not begin with such. Pure."""

from collections.abc import Callable, Mapping
from typing import Final

from streams.flow.declaration import Pipeline
from streams.kafka.round import Group, Round
from streams.text import counted

_NOT_TOLD: Final = -1


HasRecords = Callable[[int, int, int], bool]
"""Whether a partition of the source has a record from one offset to before another; a transaction's end is none."""


def stuck_partitions(
    flow: Pipeline, partitions: int, before: Round, now: Round, has_records: HasRecords
) -> dict[int, str]:
    """Those of the first `partitions` of the source that are not processed, and why in words; empty: all are.

    A partition is processed if a member of the group has it, and if, with records waiting, its offset has moved since
    `before`. Where the broker does not tell the members, they are not asked about.
    """
    found: dict[int, str] = {}
    base = now.base.get(flow.source)
    if base is None:
        return found
    group = next((one for one in now.groups if one.name == flow.group), None)
    owned = _owned(group)
    positions, earlier = (_positions(one, flow.group) for one in (now, before))
    seconds = max(0.0, (now.time_ms - before.time_ms) / 1000)
    for partition in range(partitions):
        number = base + partition
        if number >= len(now.end) or now.end[number] == _NOT_TOLD:
            found[partition] = "it has no leader"
        elif owned is not None and not owned:
            found[partition] = f"no worker runs: start one with `streams worker --pipeline {flow.name}`"
        elif owned is not None and number not in owned:
            found[partition] = f"no worker has it: see `streams lag --group {flow.group}`"
        else:
            at, end = positions.get(number, (int(now.low[number]), 0))[0], int(now.end[number])
            stands = at < end and positions.get(number) == earlier.get(number)
            if stands and has_records(partition, at, end):
                found[partition] = (
                    f"its offset has not moved for {seconds:.0f} s with {counted(end - at, 'record')} waiting: see "
                    f"`streams lag --group {flow.group}`"
                )
    return found


def _owned(group: Group | None) -> frozenset[int] | None:
    """Partitions, by their numbers in the round, that some member has; None: not told."""
    if group is None or group.members is None:
        return None
    return frozenset(one for member in group.members for one in member.partitions)


def _positions(found: Round, group: str) -> Mapping[int, tuple[int, int]]:
    """Offset and mark of the group by partition."""
    number = next((place for place, one in enumerate(found.groups) if one.name == group), None)
    rows = zip(
        found.commit_group.tolist(), found.commit_partition.tolist(), found.commit_offset.tolist(),
        found.commit_mark.tolist(), strict=True,
    )  # fmt: skip
    return {partition: (offset, mark) for owner, partition, offset, mark in rows if owner == number}
