"""Which snapshots and objects of a partition are deleted. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from streams.limits import SNAPSHOT_GRACE_MS
from streams.snapshots.objects import Found


@dataclass(frozen=True, slots=True)
class Kept:
    """A manifest that is there."""

    name: str
    journal: str
    """Id of the journal's topic; empty: the manifest cannot be read."""
    cycle: int
    written_ms: int
    """By the clock of the object store."""


def expired_manifests(manifests: Sequence[Kept], *, journal: str, keep: int, now_ms: int) -> list[str]:
    """Names of manifests that go: not among the `keep` newest of this `journal` for longer than the grace.

    One of another journal, or that cannot be read, goes when it is older than the grace. A restore takes one of the
    newest, so that the one it has taken stays for the length of the grace at least.
    """
    ours = sorted((one for one in manifests if one.journal == journal), key=lambda one: one.cycle, reverse=True)
    gone = [one.name for one in manifests if one.journal != journal and now_ms - one.written_ms > SNAPSHOT_GRACE_MS]
    for place, one in enumerate(ours):
        if place >= keep:
            # When the newest `keep` were complete without it.
            since_ms = max(newer.written_ms for newer in ours[place - keep : place])
            if now_ms - max(since_ms, one.written_ms) > SNAPSHOT_GRACE_MS:
                gone.append(one.name)
    return gone


def unused_objects(objects: Sequence[Found], used: Collection[str], *, now_ms: int) -> list[str]:
    """Names of objects that no manifest names and that are older than the grace.

    `objects` must have been listed before the manifests were read that name those in `used`: what was uploaded for a
    manifest that came since then was listed, if at all, as younger than the grace or is named by another one.
    """
    return [
        one.name
        for one in objects
        if one.name.rpartition("/")[2] not in used and now_ms - one.modified_ms > SNAPSHOT_GRACE_MS
    ]
