"""Forgetting keys (docs/adr/0090): a request to workers that run, and what is written when a key is forgotten.

The cycle itself is `TaskCycle.forgetting`, and `Committer.forget` writes it, whoever calls: a worker between two of its
cycles, or `streams forget` while no worker runs.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from streams.deadletters.letter.audit import TEXT_CHARACTERS_MAX, Actor, forget_record
from streams.engine.log import Changelog
from streams.engine.partition import PartitionState
from streams.flow.declaration import Pipeline
from streams.limits import KEY_BYTES_MAX
from streams.sinks.base import TopicRecords, one_record

VERSION: Final = 1
REQUEST_BYTES_MAX: Final = 16_384
_INPUTS_MAX: Final = 64
_RUN_CHARACTERS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class ForgetRequest:
    """A request to workers to forget a key once all its existing records are processed and released."""

    id: str
    key: bytes
    after: tuple[int, ...]
    """For each input, in the partition of the key, the offset up to which records of the key existed."""
    actor: Actor

    def pack(self) -> bytes:
        """Value of the request's record; the record's key is the id."""
        return json.dumps(
            {
                "version": VERSION,
                "key": base64.b64encode(self.key).decode(),
                "after": list(self.after),
                "by": self.actor.by,
                "why": self.actor.why,
                "run": self.actor.run,
            }
        ).encode()


def unpack_request(name: bytes | None, value: bytes | None) -> ForgetRequest | None:
    """The request in a record; None if it is not one, or of a later version."""
    if name is None or value is None or len(value) > REQUEST_BYTES_MAX or len(name) > _RUN_CHARACTERS_MAX:
        return None
    try:
        found = json.loads(value)
        if not isinstance(found, dict) or found.get("version") != VERSION:
            return None
        key = base64.b64decode(found["key"], validate=True)
        after, texts = found["after"], [found["by"], found["why"], found["run"]]
        identity = name.decode()
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        return None
    is_right = (
        0 < len(key) <= KEY_BYTES_MAX
        and isinstance(after, list)
        and len(after) <= _INPUTS_MAX
        and all(type(one) is int for one in after)
        and all(isinstance(one, str) and len(one) <= TEXT_CHARACTERS_MAX for one in texts)
    )
    return ForgetRequest(identity, key, tuple(after), Actor(*texts)) if is_right else None


class OpenRequests:
    """Open requests of a flow: not carried out and still in the topic. One thread."""

    def __init__(self, flow: Pipeline, changelog: Changelog) -> None:
        """Nothing is read yet. The topic may be missing before `read`."""
        self._topic, self._changelog = flow.forget, changelog
        self._next = 0
        self._found: dict[str, tuple[int, ForgetRequest]] = {}
        """Offset and content of each open request, by its id."""
        self.unreadable = 0
        """Number of records that are not requests of this version."""

    def read(self) -> tuple[ForgetRequest, ...]:
        """Read the topic to its end, open transactions included; returns the open requests, in order.

        Raises:
            StreamsError: the topic cannot be read to its end.

        """
        low, end = self._changelog.bounds(self._topic, 0)
        if end < self._next:  # the topic was recreated
            self._next, self._found = 0, {}
        for rows in self._changelog.read(self._topic, 0, max(low, self._next), end):
            for row in rows:
                self._take(row.offset, row.key, row.value)
        self._next = end
        self._found = {name: one for name, one in self._found.items() if one[0] >= low}
        return tuple(request for _, request in self._found.values())

    def _take(self, offset: int, name: bytes | None, value: bytes | None) -> None:
        if name is not None and value is None:
            self._found.pop(name.decode(errors="replace"), None)
            return
        request = unpack_request(name, value)
        if request is None:
            self.unreadable += 1
        else:
            self._found[request.id] = (offset, request)


def waits(task: PartitionState, key: bytes) -> bool:
    """Whether an operator holds events of the key, which would bring its rows back. Call it between cycles."""
    return any(one.holds(key, task.watermark_of(name)) for name, one in task.operators.items())


def has_processed(task: PartitionState, request: ForgetRequest) -> bool:
    """Whether a partition has processed what the request requires."""
    return all(reached >= wanted for reached, wanted in zip(task.offsets_closed, request.after, strict=False))


def told_beside(
    flow: Pipeline, actor: Actor, partition: int, now_ms: int, *, done: Sequence[ForgetRequest] = ()
) -> list[TopicRecords]:
    """Records to write with the cycle: to the audit that a key was forgotten, and that requests are carried out."""
    audit = one_record(flow.audit, *forget_record(actor, partition, at_ms=now_ms), now_ms, origin=partition)
    return [audit, *(one_record(flow.forget, one.id.encode(), None, now_ms, partition=0) for one in done)]
