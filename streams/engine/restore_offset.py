"""Finds the offset to go on from in each input: state, the group's committed offset and the input must agree."""

import structlog

from streams.batch.lanes import lane_of
from streams.engine.journal_chain import RestoreFailed
from streams.engine.restore_context import RestoreContext
from streams.engine.restore_identity import newest_identity
from streams.growth.layout import FIRST_EPOCH
from streams.sinks.base import Committed
from streams.state.journal import Position

log = structlog.get_logger(__name__)


class StartOffset:
    """Decides at which offset one input of one partition is continued."""

    def __init__(self, context: RestoreContext, number: int) -> None:
        """`number` of the input, counted from 0."""
        self._context = context
        self._topic = context.config.inputs[number].topic
        self._where = context.where_of(number)
        self._lane = lane_of(number, context.partition)

    def committed(self) -> Committed | None:
        """The group's position in the topic that is there now."""
        found = self._context.changelog.committed([self._lane])[self._lane]
        now = self._context.places.topics.get(self._topic, "")
        if found is not None and found.topic_id and now and found.topic_id != now:
            return None  # an offset in a topic that was deleted
        return found

    def epoch(self, committed: Committed | None) -> int:
        """Return the epoch of the state's layout; 0: there is no state, or it has not been taken over completely.

        By the group's offset, or where that is gone by what the journal says last.
        """
        if committed is not None and committed.cycle is not None:
            return FIRST_EPOCH if committed.epoch is None else committed.epoch
        layouts = self._context.layouts
        if layouts is None:
            return FIRST_EPOCH
        found = newest_identity(self._context, self._context.partition)
        is_begun = (
            found is not None and layouts.is_child(self._context.partition) and found.epoch < layouts.known[-1].epoch
        )
        return 0 if found is None or is_begun else found.epoch

    def after(self, committed: Committed | None, reached: Position, cycle: int) -> int:
        """The offset to consume from, once state, group and input agree: the state has `reached` it by a cycle.

        Raises:
            RestoreFailed: they do not.

        """
        pipeline, where = self._context.pipeline, self._where
        if reached.offset_next < 0:
            return -1
        low, end = self._context.changelog.bounds(self._topic, self._context.partition)
        truncated = self._truncated(reached, low, end)
        if truncated:
            if committed is not None and committed.cycle is None and low <= committed.offset_next <= end:
                log.warning(
                    "the source was truncated; going on at the offset that the group was set to",
                    partition=where, offset=committed.offset_next, state_offset=reached.offset_next,
                )  # fmt: skip
                return committed.offset_next
            command = reset_offset_command(pipeline.group, self._topic, self._context.partition, low)
            raise RestoreFailed(
                f"{where}: the state's offset is {reached.offset_next}, {truncated}. "
                f"Stop the workers and set the group's offset of this partition to where it should go on, {low} to "
                f"process all that is there: {command}"
            )
        if committed is None:
            log.warning(
                "the group's offset is gone (expired?): going on where the journal ends",
                partition=where, offset=reached.offset_next,
            )  # fmt: skip
            return reached.offset_next
        if committed.cycle is None and committed.offset_next == reached.offset_next:
            log.info("the group's offset was written by something else; it is ours", partition=where)
        elif (committed.offset_next, committed.cycle) != (reached.offset_next, cycle):
            written_by = "something else" if committed.cycle is None else f"cycle {committed.cycle}"
            command = reset_offset_command(pipeline.group, self._topic, self._context.partition, reached.offset_next)
            raise RestoreFailed(
                f"{where}: state stands at offset {reached.offset_next} (cycle {cycle}), the group at offset "
                f"{committed.offset_next} (written by {written_by}). Offsets cannot be moved without the state: stop "
                f"the workers and set the group back: {command}"
            )
        return reached.offset_next

    def _truncated(self, reached: Position, low: int, end: int) -> str:
        """What says that records which this state has seen are gone from the end of the topic; empty: nothing does."""
        if reached.offset_next > end:
            return f"the topic ends at {end}: it was truncated"
        if (
            reached.leader_epoch < 0
            or reached.offset_next <= low
            or not self._context.changelog.has_diverged(
                self._topic, self._context.partition, reached.offset_next, reached.leader_epoch
            )
        ):
            return ""
        return (
            f"the records of leader epoch {reached.leader_epoch} do not reach up to there any more: the topic was "
            f"truncated and written again"
        )

    def first(self, committed: Committed | None) -> int:
        """The offset to consume from where there is no state; -1: the first one.

        Raises:
            RestoreFailed: the group has an offset that state belongs to.

        """
        where = self._where
        if committed is None:
            return -1
        if committed.cycle is None:
            log.info("no state yet: starting at the group's offset", partition=where, offset=committed.offset_next)
            return committed.offset_next
        raise RestoreFailed(
            f"{where}: the group has committed offset {committed.offset_next} (cycle {committed.cycle}), but "
            f"{self._context.pipeline.journal} holds no state for it: it was emptied, or deleted and created again. "
            f"Where a worker's local state is still there, {self._context.rebuild('local')} writes it again; else "
            f"begin again with {self._context.rebuild('source')}"
        )


def reset_offset_command(group: str, topic: str, partition: int, offset: int) -> str:
    """The command of Kafka's own tools that sets a group's offset in one partition."""
    return (
        f"kafka-consumer-groups.sh --bootstrap-server SERVER --group {group} --topic {topic}:{partition} "
        f"--reset-offsets --to-offset {offset} --execute"
    )
