"""The standing of a partition in the growths of its flow, from its committed offset."""

from streams.growth.layout import FIRST_EPOCH
from streams.growth.stages import Standing
from streams.sinks.base import Committed


def standing_of(committed: Committed | None) -> Standing:
    """The standing of a partition; empty without a commit, or if something else has set its offset."""
    if committed is None or committed.cycle is None:
        return Standing(0)
    epoch = FIRST_EPOCH if committed.epoch is None else committed.epoch
    return Standing(epoch, committed.ready or 0, committed.cleared or 0, committed.settled or 0)
