"""Makes a version of a flow out of its history: begun once, gone on with by the same command, deleted by another.

In this order, so that every step may be the last one of a process:

1. take over from any other command on the versions of the flow;
2. write the version's record, with the range of the logs: what is created from now on is known to be of it;
3. create its topics;
4. have its group begin where the range does;
5. process the range, as a worker does: exactly once, wherever it is killed;
6. write into the record that it is over.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from streams.backfill.admin import BackfillAdmin
from streams.backfill.log import VersionsWriter
from streams.backfill.request import Request, ends_of, require_can_be_rerun, starts_of
from streams.backfill.running import Ran, Tell, run_over
from streams.backfill.staging import export_delta, newest_version, stage_files
from streams.errors import StreamsError
from streams.flow.code import code_of_app
from streams.flow.declaration import Pipeline
from streams.flow.topics import OUTPUT_BYTES_MAX, Cleanup, Topic
from streams.kafka.growth_topic import GrowthTopic
from streams.kafka.versions_topic import versions_of
from streams.settings import Settings
from streams.sources.kafka.range import Range
from streams.text import counted
from streams.versions.record import From, VersionRecord, Versions
from streams.worker.owner import DataDirectory

HISTORY_FOLDER: Final = "history.delta"
"""In the data directory: sorted rows of Delta tables. No flow is called so."""
_MEMBERS_GONE_S: Final = 30.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Made:
    """How a version stands after a run."""

    flow: Pipeline
    record: VersionRecord
    ran: Ran | None
    """What the run has done; None: the version was complete already."""


class VersionMaker:
    """Makes one version of one flow, or goes on with it. Call `close` when done."""

    def __init__(self, settings: Settings, declared: Pipeline, request: Request, say: Say) -> None:
        """`settings` have the data directory of the backfill; `declared`: the flow as it is declared."""
        self._settings, self._declared, self._request, self._say = settings, declared, request, say
        self.flow = flow_of_version(declared, request.version, request.origin)
        self._writer = VersionsWriter(settings, flow=declared.name, source=declared.source, topic=declared.versions)

    def close(self) -> None:
        """Close the connections."""
        self._writer.close()

    def run(self, *, share: float, web_port: int | None, tell: Tell) -> Made:
        """Make the version, or go on with it.

        A version of an open range that is over goes on to what there is now.

        Raises:
            UsageError: the version was begun with other options.
            StreamsError: it cannot be made; or brokers do not answer.
            FencedError: another command was started.

        """
        require_can_be_rerun(self._declared, grown=self._is_grown(), origin=self._request.origin)
        with BackfillAdmin(self._settings, self._declared) as of_flow:
            of_flow.lanes()  # what it reads is there
            of_flow.create(versions_topic(self._declared), partitions=1)
        self._writer.open()
        versions = versions_of(self._settings, self._declared)
        require_idle(versions, self._declared, self._request.version)
        record = versions.made.get(self._request.version)
        with BackfillAdmin(self._settings, self.flow) as admin:
            record = self._begun(admin) if record is None else self._gone_on_with(admin, record)
            if record.is_finished:
                return Made(self.flow, record, None)
            self._require_no_other(admin)
            if not record.ends:
                record = self._staged(admin, record)
            self._prepare(admin, record)
        over = Range(record.ends, is_closed=record.is_closed)
        ran = run_over(self._settings, self.flow, over, record.starts, share=share, web_port=web_port, tell=tell)
        if ran.is_over:
            record = replace(record, finished_ms=_now_ms())
            self._writer.write(record)
        return Made(self.flow, record, ran)

    def _is_grown(self) -> bool:
        if not self._declared.growth_topics():
            return False
        topic = GrowthTopic(self._settings, self._declared)
        try:
            return bool(topic.read())
        finally:
            topic.close()

    def _begun(self, admin: BackfillAdmin) -> VersionRecord:
        request, flow = self._request, self.flow
        counts = admin.partitions()
        if there := sorted(topic for topic in own_topics(flow) if topic in counts):
            raise StreamsError(f"{', '.join(there)}: there already, and no backfill has made it; choose another --into")
        if self._request.origin is not From.TOPIC:
            return self._begun_with_files(admin)
        lanes = admin.lanes()
        if admin.committed(lanes) or admin.members():
            raise StreamsError(
                f"group {flow.group} is there already, and no backfill has made it; choose another --into"
            )
        bounds = admin.bounds(lanes)
        at_from = None if request.from_ms is None else admin.at_time(lanes, request.from_ms)
        at_to = None if request.to_ms is None else admin.at_time(lanes, request.to_ms)
        starts = starts_of(flow, bounds, at_from)
        record = request.record(starts, ends_of(flow, bounds, at_to, starts), _now_ms(), code_of_app())
        self._writer.write(record)
        return record

    def _begun_with_files(self, admin: BackfillAdmin) -> VersionRecord:
        if self.flow.source in admin.partitions():
            raise StreamsError(
                f"{self.flow.source} is there already, and no backfill has made it; choose another --into"
            )
        record = self._request.record({}, {}, _now_ms(), code_of_app())
        if record.origin is From.DELTA:
            record = replace(record, pinned=newest_version(record.inputs[0]))
        self._writer.write(record)
        return record

    def _staged(self, admin: BackfillAdmin, record: VersionRecord) -> VersionRecord:
        """Bring the files into the topic that the version reads, and note where that ends."""
        history = Topic(self.flow.source, cleanup=Cleanup.DELETE_RECORDS_ONLY, message_bytes_max=OUTPUT_BYTES_MAX)
        admin.create(history, partitions=admin.partitions()[self._declared.source])
        paths: list[str] = list(record.inputs)
        if record.pinned is not None:
            folder = self._settings.streams_data_dir / HISTORY_FOLDER
            paths = [str(export_delta(self._settings, self.flow, record.inputs[0], record.pinned, folder))]
        self._say(f"{self.flow.name}: {', '.join(record.inputs)} into {self.flow.source}")
        results = stage_files(self._settings, self.flow, paths, self._request.mapping, None)
        for one in results:
            self._say(f"{one.name}: {counted(one.rows, one.row_word)}, {one.bad:,} bad")
        bounds = admin.settled_bounds()
        record = replace(
            record,
            starts={lane: low for lane, (low, _) in bounds.items()},
            ends={lane: end for lane, (_, end) in bounds.items()},
            bad_rows=sum(one.bad for one in results),
        )
        self._writer.write(record)
        return record

    def _gone_on_with(self, admin: BackfillAdmin, record: VersionRecord) -> VersionRecord:
        self._request.require_same(record)
        if record.code != (code := code_of_app()):
            raise StreamsError(
                f"version {record.version} was begun with other code of the app ({record.code}, this is {code}): its "
                "rows would be of both. Go on with that code, or begin again: --abandon, or another --into"
            )
        if record.is_finished and not record.is_closed:
            bounds = admin.bounds(admin.lanes())
            ends = ends_of(self.flow, bounds, None, record.starts)
            if any(end > record.ends.get(lane, 0) for lane, end in ends.items()):
                record = replace(record, ends=ends, finished_ms=None)
                self._writer.write(record)
        return record

    def _require_no_other(self, admin: BackfillAdmin) -> None:
        """Wait until nobody but a run of this directory that was killed is a member of the version's group."""
        directory = DataDirectory(self._settings.streams_data_dir)
        own = f"{self.flow.member_prefix}{directory.worker_id}"
        directory.release()
        deadline_s, is_said = time.monotonic() + _MEMBERS_GONE_S, False
        while others := [member for member in admin.members() if member != own]:
            if time.monotonic() > deadline_s:
                raise StreamsError(
                    f"{self.flow.group} has members ({', '.join(others)}): another process goes on with this version"
                )
            if not is_said:
                is_said = True
                self._say(f"waiting for {', '.join(others)} to leave {self.flow.group}")
            time.sleep(0.5)

    def _prepare(self, admin: BackfillAdmin, record: VersionRecord) -> None:
        partitions = admin.partitions()[self._declared.source]
        admin.create_outputs(partitions)
        lanes = sorted(record.starts)
        known = admin.committed(lanes)
        admin.commit({lane: record.starts[lane] for lane in lanes if lane not in known})


def flow_of_version(declared: Pipeline, version: str, origin: From) -> Pipeline:
    """A version of a flow, as its history is read."""
    flow = declared.as_version(version)
    return flow if origin is From.TOPIC else flow.reading_history(flow.history)


def versions_topic(declared: Pipeline) -> Topic:
    """The topic of the versions of a flow as the first backfill creates it."""
    return Topic(declared.versions, cleanup=Cleanup.COMPACT, partitions=1)


def own_topics(flow: Pipeline) -> list[str]:
    """Topics that a version has for itself."""
    read = {one.topic for one in flow.inputs}
    return [topic.name for topic in (*flow.topics(), *flow.growth_topics()) if topic.name not in read]


def require_idle(versions: Versions, declared: Pipeline, version: str) -> None:
    """Refuse to touch a version that workers run, or go on with.

    Raises:
        StreamsError: they do.

    """
    current = versions.current
    if current.going_to is not None:
        raise StreamsError(
            f"{declared.name} is switching to {called(current.going_to)}: finish it with `streams backfill --flow "
            f"{declared.name} --into {version} --promote`, or take it back with --abandon"
        )
    if current.version == version:
        raise StreamsError(f"version {version} of {declared.name} is the current one: workers run it")


def called(version: str) -> str:
    """A version in words."""
    return f"version {version}" if version else "the declared version"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
