"""Has another version of a flow take over from the current one, and goes back.

A promotion, in this order; whatever is killed, the same command goes on:

1. the version that takes over processes what the current one has, up to where its group is, again and again, until it
   is near;
2. the record of the current version says that a switch goes on: workers stop, and wait;
3. the current version's group has no members any more, and stands still: there it stops;
4. the version that takes over processes up to there, and stops;
5. the record says that it is current: workers go on with it, from there.

No record of the source is left out in the outputs of the version that takes over, or processed twice: it goes on from
its own committed offsets, and no two versions are run at the same time.

The way back processes nothing: the current version is stopped in the same way, and workers go on with the one before
from where that had stopped.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from streams.backfill.admin import BackfillAdmin
from streams.backfill.log import VersionsWriter
from streams.backfill.make import called
from streams.backfill.running import Tell, run_over
from streams.errors import StreamsError, UsageError
from streams.flow.code import code_of_app
from streams.flow.declaration import Pipeline
from streams.kafka.versions_topic import versions_of
from streams.settings import Settings
from streams.sinks.base import Committed
from streams.sources.kafka.range import Range
from streams.text import counted
from streams.versions.record import CurrentRecord, VersionRecord, Versions

NEAR_OFFSETS: Final = 20_000
"""With so small a lag after the current version, it is stopped: less than a second of processing."""
_LOOK_S: Final = 0.5
_STOPPED_S: Final = 1.0
"""How long a group without members has to stand still: a worker that has just read the record may have joined."""
_SAY_S: Final = 15.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Switched:
    """What a switch has come to."""

    current: CurrentRecord
    was_done: bool
    stopped_s: float
    """For how long no version was run by workers, up to the record that says which one is."""


class Switch:
    """From the current version of a flow to another one. `close` when done."""

    def __init__(self, settings: Settings, declared: Pipeline, to: str, say: Say) -> None:
        """`settings` have the data directory of the version that takes over."""
        self._settings, self._declared, self._to, self._say = settings, declared, to, say
        self._flow = declared.as_version(to)
        self._writer = VersionsWriter(settings, flow=declared.name, source=declared.source, topic=declared.versions)

    def close(self) -> None:
        """Close the connections."""
        self._writer.close()

    def run(self, *, share: float, web_port: int | None, tell: Tell) -> Switched:
        """Switch, or go on with a switch to the same version that was begun.

        Raises:
            UsageError: there is no such version.
            StreamsError: it cannot take over; or brokers do not answer; or it was stopped.
            FencedError: another command was started.

        """
        self._writer.open()
        versions = versions_of(self._settings, self._declared)
        current = versions.current
        if current.version == self._to and current.going_to is None:
            return Switched(current, was_done=True, stopped_s=0.0)
        record = require_can_take_over(versions, self._declared, self._to)
        before = self._declared.as_version(current.version)
        with BackfillAdmin(self._settings, before) as old, BackfillAdmin(self._settings, self._flow) as new:
            starts = _starts(self._declared, self._to, record.starts, new)
            over = Range(starts, is_final=False)
            pursuit = _Pursuit(self._writer, old, current.switching(self._to), over, self._say)
            settings = self._settings.model_copy(update={"streams_group_leave": True})
            pursuit.start()
            try:
                ran = run_over(
                    settings, self._flow, over, starts, share=share, web_port=web_port, tell=tell,
                    on_reached=pursuit.reached,
                )  # fmt: skip
            finally:
                pursuit.close()
            if pursuit.failure is not None:
                raise pursuit.failure
            if not ran.is_over:
                goes_on = "the workers wait; " if pursuit.is_begun else ""
                raise StreamsError(
                    f"stopped before the switch: {goes_on}the same command goes on, --abandon takes it back"
                )
            done = {lane: at.offset_next for lane, at in new.committed(sorted(starts)).items()}
            retired = {at.code for at in pursuit.stopped.values() if at.code} - {record.code}
        switched = current.switching(self._to).switched(done, retired, time.time_ns() // 1_000_000)
        self._writer.write(switched)
        return Switched(switched, was_done=False, stopped_s=time.monotonic() - pursuit.begun_s)


class _Pursuit:
    """Moves the end of the range to where the current version is, has that one stop, and ends the range there."""

    def __init__(
        self, writer: VersionsWriter, old: BackfillAdmin, switching: CurrentRecord, over: Range, say: Say
    ) -> None:
        self._writer, self._old, self._switching, self._over, self._say = writer, old, switching, over, say
        self._lanes = sorted(over.ends)
        self._reached: Mapping[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)
        self.failure: StreamsError | None = None
        self.is_begun = False
        """Whether the record says that a switch goes on."""
        self.begun_s = 0.0
        self.stopped: Mapping[int, Committed] = {}
        """By lane: where the current version has stopped."""

    def start(self) -> None:
        """Start the checking thread. Call it once; `close` ends it."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread, and wait until it has ended."""
        self._stop.set()
        self._thread.join()

    def reached(self, positions: Mapping[int, int]) -> None:
        """Be told how far the version that takes over is, by lane."""
        self._reached = positions

    def _run(self) -> None:
        try:
            self._come_near()
            if not self._stop.is_set():
                self._have_it_stop()
        except StreamsError as error:
            self.failure = error
            signal.raise_signal(signal.SIGTERM)

    def _come_near(self) -> None:
        while not self._stop.wait(_LOOK_S):
            at = self._committed()
            if at is None:
                continue
            self._over.move({lane: at[lane].offset_next if lane in at else 0 for lane in self._lanes}, is_final=False)
            left = sum(max(end - self._reached.get(lane, 0), 0) for lane, end in self._over.ends.items())
            if self._reached and left <= NEAR_OFFSETS:
                return

    def _have_it_stop(self) -> None:
        self._writer.write(self._switching)
        self.is_begun, self.begun_s = True, time.monotonic()
        found = stopped(self._old, self._lanes, self._say, self._stop)
        if found is not None:
            self.stopped = found
            self._over.move(_offsets(found, self._lanes), is_final=True)

    def _committed(self) -> Mapping[int, Committed] | None:
        return _committed(self._old, self._lanes)


def stopped(
    current: BackfillAdmin, lanes: Sequence[int], say: Say, stop: threading.Event
) -> Mapping[int, Committed] | None:
    """Where the current version has stopped, by lane, once its group has no members and stands still; None: `stop`.

    Raises:
        StreamsError: no answer about its members.

    """
    last: object = None
    since_s = time.monotonic()
    due_s = since_s + _SAY_S
    while not stop.wait(_LOOK_S):
        members, at, now_s = current.members(), _committed(current, lanes), time.monotonic()
        state = None if members or at is None else _offsets(at, lanes)
        if state is None or state != last:
            last, since_s = state, now_s
        elif now_s - since_s >= _STOPPED_S:
            return at
        if now_s >= due_s:
            due_s += _SAY_S
            why = f"members {', '.join(members)}" if members else "its offsets are not settled"
            say(f"waiting for the workers of the current version to stop: {why}")
    return None


def _offsets(committed: Mapping[int, Committed], lanes: Iterable[int]) -> dict[int, int]:
    """By lane: the offset after what was processed; 0 where nothing was."""
    return {lane: committed[lane].offset_next if lane in committed else 0 for lane in lanes}


def _committed(of: BackfillAdmin, lanes: Sequence[int]) -> Mapping[int, Committed] | None:
    """What a version has committed; None while a transaction of its is not settled, or without answer."""
    try:
        return of.committed(lanes)
    except StreamsError:
        return None


def _starts(declared: Pipeline, version: str, begun: Mapping[int, int], admin: BackfillAdmin) -> dict[int, int]:
    """By lane: where a version goes on; `begun`: where it began.

    Raises:
        StreamsError: retention has deleted records that it has not processed.

    """
    lanes = admin.lanes()
    known, bounds = admin.committed(lanes), admin.bounds(lanes)
    found = {
        lane: known[lane].offset_next if lane in known else begun.get(lane, low) for lane, (low, _) in bounds.items()
    }
    if lost := sum(max(low - found[lane], 0) for lane, (low, _) in bounds.items()):
        raise StreamsError(
            f"{declared.source} lacks {counted(lost, 'record')} that {called(version)} of {declared.name} would have "
            "to process: retention has deleted them since it stopped. Make a new version"
        )
    return found


def require_can_take_over(versions: Versions, declared: Pipeline, to: str) -> VersionRecord:
    """Refuse a switch to a version that is none, or that nothing goes on from.

    Raises:
        UsageError: there is no such version.
        StreamsError: it cannot take over, or another switch goes on.

    """
    current, record, code = versions.current, versions.made.get(to), code_of_app()
    if current.going_to is not None and current.going_to != to:
        raise StreamsError(
            f"{declared.name} is switching to {called(current.going_to)}: finish that, or take it back with --abandon"
        )
    if record is None:
        raise UsageError(f"{declared.name} has no version {to}: make it with `streams backfill`")
    if record.is_closed:
        raise StreamsError(
            f"version {to} is closed: at the end of its range all that was held was released, so that what comes next "
            "would be late. Make a version without --to, from the topic"
        )
    if not record.is_finished:
        raise StreamsError(f"version {to} is not over: run the command that began it to its end first")
    if record.code != code:
        raise StreamsError(
            f"version {to} was made with other code of the app ({record.code}, this is {code}): promote it with that"
        )
    return record


def roll_back(settings: Settings, declared: Pipeline, say: Say) -> Switched:
    """Have workers go on with the version that the current one has taken over from, from where that stopped.

    Raises:
        StreamsError: there is none; or retention has deleted what it has not processed; or brokers do not answer.
        FencedError: another command was started.

    """
    writer = VersionsWriter(settings, flow=declared.name, source=declared.source, topic=declared.versions)
    try:
        writer.open()
        current = versions_of(settings, declared).current
        to = current.before
        if to is None:
            raise StreamsError(
                f"{declared.name} runs {called(current.version)}, which has taken over from no other one"
            )
        if current.going_to not in {None, to}:
            raise StreamsError(
                f"{declared.name} is switching to {called(str(current.going_to))}: --abandon takes it back"
            )
        with (
            BackfillAdmin(settings, declared.as_version(current.version)) as old,
            BackfillAdmin(settings, declared.as_version(to)) as new,
        ):
            starts = _starts(declared, to, {}, new)
            codes = {at.code for at in new.committed(sorted(starts)).values()}
            writer.write(current.switching(to))
            began_s = time.monotonic()
            found = stopped(old, sorted(starts), say, threading.Event()) or {}
        retired = {at.code for at in found.values() if at.code} - codes
        switched = current.switching(to).switched(starts, retired, time.time_ns() // 1_000_000)
        writer.write(switched)
        return Switched(switched, was_done=False, stopped_s=time.monotonic() - began_s)
    finally:
        writer.close()


def take_back(settings: Settings, declared: Pipeline) -> str:
    """Take a switch back that was begun: workers go on with the current version. Returns where it was going to.

    Raises:
        StreamsError: none goes on; or brokers do not answer.

    """
    writer = VersionsWriter(settings, flow=declared.name, source=declared.source, topic=declared.versions)
    try:
        writer.open()
        current = versions_of(settings, declared).current
        if current.going_to is None:
            raise StreamsError(f"{declared.name} is not switching: there is nothing to take back")
        writer.write(current.cancelled())
        return current.going_to
    finally:
        writer.close()
