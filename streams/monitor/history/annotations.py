"""What happened to consumer groups, for the charts of their lag: rebalances, starts of members, growths. Pure."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from streams.growth.record import GrowthRecord
from streams.kafka.round import Member
from streams.monitor.group_lag import GroupLag
from streams.monitor.snapshot import Snapshot

KEPT_MAX: Final = 200
"""Annotations kept per group: the newest ones."""
STARTED_AGAIN_MS: Final = 900_000
"""A member that joins within this time after one of the same name left is the same one, restarted."""
NAMES_MAX: Final = 4
"""Names of members in a text; further ones are counted."""


class Kind(StrEnum):
    """What has happened."""

    REBALANCE = "rebalance"
    """Members joined or left, or partitions moved from one to another."""
    DEPLOY = "deploy"
    """A member was restarted, or a worker runs another version than before."""
    GROWTH = "growth"
    """The flow of the group is given more partitions: the record of the growth says so, and when."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """Something that happened to a group, at a time."""

    time_ms: int
    kind: Kind
    text: str


@dataclass(slots=True)
class _Seen:
    """A group as of the previous look."""

    members: Mapping[str, Member] | None = None
    left: deque[tuple[int, str]] | None = None
    """When members left, and their names."""


class AnnotationLog:
    """Finds annotations by comparing each snapshot with the one before."""

    def __init__(self) -> None:
        self._found: dict[str, deque[Annotation]] = {}
        self._seen: dict[str, _Seen] = {}
        self._growths: dict[str, set[tuple[int, str]]] = {}
        self._versions: dict[str, str] = {}

    def of(self, group: str, start_ms: int, end_ms: int) -> list[Annotation]:
        """Annotations of a group in a range of time, the oldest first."""
        found = [one for one in self._found.get(group, ()) if start_ms <= one.time_ms <= end_ms]
        return sorted(found, key=lambda one: one.time_ms)

    def observe(self, snapshot: Snapshot) -> None:
        """Compare with the previous snapshot."""
        for name in self._seen.keys() - snapshot.groups.keys():
            del self._seen[name]
        for group in snapshot.groups.values():
            self._observe_members(group)
        for name, records in snapshot.growth_records.items():
            self._observe_growths(name, records)
        self._observe_versions(snapshot)

    def forget_before(self, time_ms: int) -> None:
        """Forget what is older."""
        for name, kept in list(self._found.items()):
            while kept and kept[0].time_ms < time_ms:
                kept.popleft()
            if not kept:
                del self._found[name]

    def _note(self, group: str, time_ms: int, kind: Kind, text: str) -> None:
        self._found.setdefault(group, deque(maxlen=KEPT_MAX)).append(Annotation(time_ms, kind, text))

    def _observe_members(self, group: GroupLag) -> None:
        if group.group.members is None:
            return  # not known
        seen = self._seen.setdefault(group.name, _Seen(left=deque(maxlen=KEPT_MAX)))
        now = {member.member_id: member for member in group.group.members}
        before, seen.members = seen.members, now
        if before is None or seen.left is None:
            return
        came = [now[one] for one in now if one not in before]
        went = [before[one] for one in before if one not in now]
        moved = _moved(before, now)
        if not came and not went and not moved:
            return
        while seen.left and seen.left[0][0] < group.time_ms - STARTED_AGAIN_MS:
            seen.left.popleft()
        seen.left.extend((group.time_ms, _name(one)) for one in went)
        again = _started_again(came, seen.left)
        if again:
            self._note(group.name, group.time_ms, Kind.DEPLOY, f"started again: {_names(again)}")
        if Counter(map(_name, came)) == Counter(map(_name, went)) and again:
            return  # each took over its own partitions
        new = [name for name in map(_name, came) if name not in again]
        parts = [
            f"{_names(new)} joined" if new else "",
            f"{_names(list(map(_name, went)))} left" if went else "",
            f"{moved} {'partition' if moved == 1 else 'partitions'} moved" if moved else "",
            f"{len(now)} {'member' if len(now) == 1 else 'members'} now" if len(now) != len(before) else "",
        ]
        if text := ", ".join(filter(None, parts)):
            self._note(group.name, group.time_ms, Kind.REBALANCE, text)

    def _observe_growths(self, group: str, records: Sequence[GrowthRecord]) -> None:
        known = self._growths.setdefault(group, set())
        for record in records:
            growth, phase = record.growth, record.phase.value
            if (growth.epoch, phase) in known:
                continue
            known.add((growth.epoch, phase))
            text = f"{growth.before.partitions} to {growth.after.partitions} partitions: {phase}"
            self._note(group, record.at_ms, Kind.GROWTH, text)

    def _observe_versions(self, snapshot: Snapshot) -> None:
        for worker in snapshot.workers:
            if not worker.version:
                continue
            name = str(worker.address)
            before = self._versions.get(name, worker.version)
            self._versions[name] = worker.version
            if before == worker.version:
                continue
            for group in snapshot.groups.values():
                if group.is_flow:
                    text = f"{name} runs {worker.version}, after {before}"
                    self._note(group.name, snapshot.time_ms, Kind.DEPLOY, text)


def _name(member: Member) -> str:
    return member.client_id or member.member_id


def _names(names: Sequence[str]) -> str:
    more = len(names) - NAMES_MAX
    return ", ".join(names[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")


def _moved(before: Mapping[str, Member], now: Mapping[str, Member]) -> int:
    """Number of partitions that moved from one member to another of another name."""
    had = {number: member for member in before.values() for number in member.partitions}
    has = {number: member for member in now.values() for number in member.partitions}
    return sum(
        1
        for number, member in has.items()
        if number in had and had[number].member_id != member.member_id and _name(had[number]) != _name(member)
    )


def _started_again(came: Sequence[Member], left: deque[tuple[int, str]]) -> list[str]:
    """Names of members that joined shortly after leaving; removes them from those that left."""
    found = []
    for name in map(_name, came):
        gone = next((one for one in left if one[1] == name), None)
        if gone is not None:
            left.remove(gone)
            found.append(name)
    return found
