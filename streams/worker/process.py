"""The Faust app of a worker: for each flow a channel, an agent that steps through it, and an intake.

Faust gives the programming model, supervision, signals and the order of starting and stopping. Its Kafka client, tables
and assignor are off: `BootStrategy` is its documented way to say so.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import faust
import structlog
from confluent_kafka.admin import AdminClient
from faust.app.base import BootStrategy
from mode import Service

from streams.acls.rights import Operation
from streams.acls.roles import Role, rights_of
from streams.avro.native import choose
from streams.engine.commit import Failpoint
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.growth.layouts import Layouts
from streams.kafka.acls import in_words, lacking
from streams.kafka.admin import partition_counts_with_leaderless, wait_for_broker
from streams.kafka.native_client import native_clients
from streams.limits import CHANNEL_BATCHES_MAX, RUNTIME_MB
from streams.listening import address_of
from streams.resilience.breaker import Guard
from streams.schemas.catalog import Catalog
from streams.settings import Settings
from streams.sinks.kafka.outputs import timestamp_ages_ms
from streams.snapshots.objects import ObjectStore
from streams.state.rocks import RocksMemory
from streams.tables.metrics import TableMetrics
from streams.tables.served import served_flow
from streams.tables.stored import FlowState
from streams.tables.web import TablesWeb
from streams.text import counted
from streams.worker.budget import MemoryBudget
from streams.worker.cycle import EffectsHook, as_they_are
from streams.worker.failpoint import no_failpoint, parse_failpoint
from streams.worker.layouts import first_partitions, read_layouts, state_partitions
from streams.worker.memory import few_arenas
from streams.worker.metrics import WorkerMetrics
from streams.worker.owner import DataDirectory
from streams.worker.ownership import Polled
from streams.worker.pipeline import PipelineRunner
from streams.worker.replay import Replay
from streams.worker.tracing import tracing_of
from streams.worker.version_watch import VersionWatch
from streams.worker.watchdog import Watchdog
from streams.worker.web import Web, take_port
from streams.worker.wiring import Shared

log = structlog.get_logger(__name__)

_SWITCH_INTERVAL_S: Final = 0.0005
"""Native code gives the interpreter lock back and wants it again many times per micro-batch; at Python's default of
5 ms each time costs that much waiting for the thread that turns records into columns."""
_GC_ALLOCATIONS: Final = 100_000
_CACHE_SHARE: Final = 1 / 16
_MEMTABLES_SHARE: Final = 3 / 64
_GATHERED_SHARE: Final = 1 / 64
"""Of the memory for data, for rows that are gathered before they are written to a store."""
_STATE_SHARE: Final = 0.25
_RESIDENT_SHARE: Final = 0.8
"""Share of the memory setting; if resident memory exceeds it, state gets less than its share. The rest is for peaks."""
"""Of the memory for data, for ids, held events and keys of all flows together; the rest is batches, client queues,
caches and the runtime."""


class _WithoutFaustsKafka(BootStrategy):  # type: ignore[misc]
    enable_kafka = False
    enable_web = False


class StreamsApp(faust.App):  # type: ignore[misc]
    """A Faust app without Faust's Kafka client."""

    BootStrategy = _WithoutFaustsKafka


class WorkerProcess:
    """Everything of one worker process; `run` blocks until it is stopped."""

    def __init__(
        self,
        settings: Settings,
        pipelines: list[Pipeline],
        *,
        web_port: int | None,
        web_listener: socket.socket | None = None,
        hook_of: Callable[[WorkerMetrics], EffectsHook] | None = None,
        replay: Replay | None = None,
        follows_versions: bool = False,
    ) -> None:
        """Check what a worker needs before it starts.

        `web_listener`: where its web server answers, in place of a port. `hook_of` is called once for each flow;
        the hook that it returns gets what each micro-batch has brought about, in the thread that processes, before it
        is written.

        `replay`: a range of history that the only flow is run over; the worker ends after it. `follows_versions`: stop,
        and say so by `is_switching`, when another version of a flow is to run.

        Raises:
            UsageError: the failpoint is none; or the native decoder is demanded and cannot be used.
            StreamsError: no broker, rights lacking, topics missing or not co-partitioned, data directory taken, port
                taken.

        """
        few_arenas()
        log.info(
            "records are decoded", how=choose(settings.streams_native).reason,
            taken="natively" if native_clients(settings.streams_native) is not None else "in Python",
        )  # fmt: skip
        self._failpoint_spec = settings.streams_failpoint
        self._failpoint()  # a wrong one is refused before anything else is looked at
        self._hook_of = hook_of
        self._replay = replay
        self.is_switching = False
        """Whether it has stopped since another version of a flow is to run."""
        self._versions = VersionWatch(settings, pipelines, self._switch) if follows_versions else None
        self._settings = settings
        self._failure: BaseException | None = None
        self.metrics = WorkerMetrics()
        if settings.streams_snapshot_url:
            ObjectStore(settings.streams_snapshot_url)  # a wrong address is refused before anything else is looked at
            self.metrics.snapshot_interval.set(settings.streams_snapshot_interval_s)
        client = wait_for_broker(settings)
        counts = partition_counts_with_leaderless(client)
        _check_rights(client, pipelines)
        self._layouts: dict[str, Layouts | None] = {}
        for pipeline in pipelines:
            require_topics(pipeline, counts)
            layouts = read_layouts(settings, pipeline, state_partitions(pipeline, counts))
            check_topics(pipeline, counts, layouts)
            self._layouts[pipeline.name] = layouts
            self.metrics.begin(pipeline.name)
        events = [topic for pipeline in pipelines for topic in pipeline.event_outputs]
        self._directory = DataDirectory(settings.streams_data_dir)
        memory_bytes = (settings.streams_memory_mb_max - RUNTIME_MB) << 20
        self._shared = Shared(
            settings,
            self._directory,
            RocksMemory(
                cache_bytes=int(memory_bytes * _CACHE_SHARE),
                memtable_bytes=int(memory_bytes * _MEMTABLES_SHARE),
                gathered_bytes=int(memory_bytes * _GATHERED_SHARE),
            ),
            self.metrics,
            MemoryBudget(
                int(memory_bytes * _STATE_SHARE),
                pipelines=len(pipelines),
                resident_bytes_max=int((settings.streams_memory_mb_max << 20) * _RESIDENT_SHARE),
            ),
            Guard("schema_registry", on_state=self.metrics.breaker_state.labels("schema_registry").set),
            pipelines=len(pipelines),
            timestamp_ages_ms=timestamp_ages_ms(client, events),
        )
        self.app = StreamsApp(
            "streams",
            broker=f"kafka://{settings.kafka_bootstrap_servers}",
            web_enabled=False,
            datadir=str(settings.streams_data_dir / "faust"),
            logging_config=None,
        )
        self._counts = counts
        listener = web_listener or take_port(settings.streams_web_host, web_port)
        self._shared = replace(self._shared, address=address_of(listener, toward=settings.kafka_bootstrap_servers))
        self._tracing = tracing_of(settings)
        self.runners = [self._runner(pipeline) for pipeline in pipelines]
        self._tables = self._served_tables()
        self._web = Web(
            self.metrics.registry, self._unready, self._source_remarks, listener=listener,
            further=self._tables.routes(), connections=self._tables.connections(),
        )  # fmt: skip
        self._watchdog: Watchdog | None = None

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; everything committed or aborted, state saved, on return.

        Raises:
            StreamsError: it had to stop by itself.

        """
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        # Every record is a few tracked objects that die with their batch: at Python's threshold of 700 the collector
        # would run some 100 times for each batch, over everything that lives longer.
        gc.freeze()
        gc.set_threshold(_GC_ALLOCATIONS, 20, 50)
        self.app.flow_control.resume()
        self.app.service(_service("Lifecycle", self._start, self._stop))
        for runner in self.runners:
            self._declare(runner)
        worker = faust.Worker(
            self.app, loglevel="WARN", quiet=True, redirect_stdouts=False, logging_config=None, console_port=0
        )
        worker.override_logging = False
        worker.spinner = None  # it writes control characters to standard output
        try:
            worker.execute_from_commandline()
        except SystemExit as ended:
            if ended.code and self._failure is None:
                raise StreamsError(f"the Faust worker ended with status {ended.code}") from None
        finally:
            self._directory.release()
        if self._failure is not None:
            if isinstance(self._failure, StreamsError):
                raise self._failure
            raise StreamsError(f"stopped after an unexpected error: {self._failure!r}") from self._failure

    def _runner(self, pipeline: Pipeline) -> PipelineRunner:
        return PipelineRunner(
            pipeline,
            replace(self._shared, settings=self._settings.for_flow(pipeline.bounds.by_setting())),
            partitions=first_partitions(pipeline, self._counts, self._layouts[pipeline.name]),
            failpoint=self._failpoint(),
            on_failure=self._fail,
            hook=as_they_are if self._hook_of is None else self._hook_of(self.metrics),
            tracing=self._tracing,
            replay=self._replay,
        )

    def _served_tables(self) -> TablesWeb:
        """The tables of all flows, for those who ask."""
        metrics, catalog = TableMetrics(self.metrics.registry), Catalog.load()
        flows = [
            served_flow(
                self._settings, one.pipeline, FlowState(one.tasks, one.layouts, one.partitions), metrics,
                member=self._shared.member_of(one.pipeline), catalog=catalog,
            )
            for one in self.runners
        ]  # fmt: skip
        return TablesWeb(self._settings, flows, metrics)

    def _declare(self, runner: PipelineRunner) -> None:
        """Channel, agent and intake of one flow: the way of its data."""
        channel = self.app.channel(maxsize=CHANNEL_BATCHES_MAX)

        async def work(stream: Any) -> None:
            async for batch in stream:
                await runner.step(batch)

        self.app.agent(channel, name=f"streams.{runner.pipeline.name}")(work)

        def send(batch: Polled) -> "asyncio.Future[object]":
            sent: asyncio.Future[object] = asyncio.ensure_future(channel.send(value=batch))
            return sent

        self.app.service(_intake_service(runner.pipeline.name, runner, send))

    async def _start(self) -> None:
        await self._web.start()
        self._watchdog = Watchdog(self._settings.streams_stall_s, self.runners, asyncio.get_running_loop())
        self._watchdog.start()
        if self._versions is not None:
            self._versions.start()

    async def _stop(self) -> None:
        if self._versions is not None:
            await asyncio.to_thread(self._versions.close)
        if self._watchdog is not None:
            await asyncio.to_thread(self._watchdog.stop)
        await self._tables.close()
        await self._web.stop()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    def _unready(self) -> str | None:
        reasons = [reason for runner in self.runners if (reason := runner.unready()) is not None]
        return "; ".join(reasons) or None

    def _source_remarks(self) -> list[str]:
        return [remark for runner in self.runners for remark in runner.remarks()]

    def _failpoint(self) -> Failpoint:
        return parse_failpoint(self._failpoint_spec) if self._failpoint_spec else no_failpoint

    def _switch(self, _: str) -> None:
        """Stop in order, and leave the groups at once: nobody else is to wait for this worker's places."""
        self.is_switching = True
        for runner in self.runners:
            runner.leave_when_stopped()
        os.kill(os.getpid(), signal.SIGTERM)

    def _fail(self, error: BaseException) -> None:
        if self._failure is not None:
            return
        self._failure = error
        if isinstance(error, StreamsError):
            log.error("stopping", error=str(error))
        else:
            log.error("stopping after an unexpected error", exc_info=error)
        signal.raise_signal(signal.SIGTERM)


def _service(name: str, start: Callable[[], Any], stop: Callable[[], Any]) -> type[Service]:
    """A mode service from two coroutine functions."""

    async def on_start(_: Service) -> None:
        await start()

    async def on_stop(_: Service) -> None:
        await stop()

    return type(name, (Service,), {"on_start": on_start, "on_stop": on_stop})


def _intake_service(
    name: str, runner: PipelineRunner, send: Callable[[Polled], "asyncio.Future[object]"]
) -> type[Service]:
    """The service that feeds a flow's channel; stops the flow cleanly before Faust stops its agent."""

    class Intake(Service):  # type: ignore[misc]
        async def on_start(self) -> None:
            self._ended = asyncio.Event()

        @Service.task  # type: ignore[untyped-decorator]
        async def _run(self) -> None:
            try:
                await runner.start()
                await runner.intake_loop(send)
                if not self.should_stop:  # what it was given is processed
                    signal.raise_signal(signal.SIGTERM)
            except Exception as error:
                runner.fail(error)
                raise
            finally:
                self._ended.set()

        async def on_stop(self) -> None:
            runner.stopping()
            await self._ended.wait()
            await runner.stop()

    Intake.__name__ = f"Intake_{name}"
    return Intake


def _check_rights(client: AdminClient, pipelines: Sequence[Pipeline]) -> None:
    """Refuse to start without a right on a topic that a transaction or a restore would fail without.

    Those that only a growth or a version needs may be missing: a deployment of an earlier release has not granted them.

    Raises:
        StreamsError: some are lacking; or no answer.

    """
    lacks = lacking(client, rights_of([Role.WORKER], pipelines))
    may_lack = {topic for flow in pipelines for topic in (flow.growth, *flow.forwarded_topics, flow.versions)}
    needed = [right for right in lacks if right.name not in may_lack]
    if fatal := [right for right in needed if right.operation in {Operation.READ, Operation.WRITE}]:
        raise StreamsError(in_words(fatal))
    for right in lacks:
        log.warning("a right is lacking; the worker goes on without", right=str(right), needed_since_it=right.why)


def require_topics(pipeline: Pipeline, counts: dict[str, int]) -> None:
    """Refuse to go on without a topic that the flow reads or writes.

    Raises:
        StreamsError: some are missing.

    """
    missing = [topic.name for topic in pipeline.topics() if topic.name not in counts]
    if missing:
        raise StreamsError(f"topics are missing ({', '.join(missing)}): create them with `streams topics apply`")


def check_topics(pipeline: Pipeline, counts: dict[str, int], layouts: Layouts | None = None) -> None:
    """Refuse topics that the flow can't work with.

    All of them must exist. The source has every partition that a topic with state has, unless a growth (`layouts`) has
    given these theirs first; outputs have every partition that the state has: a dead letter without a key goes to the
    partition of the same number. A source with more partitions than the state is no error: those are refused in words,
    the others are consumed.

    Raises:
        StreamsError: they are not.

    """
    require_topics(pipeline, counts)
    grown = 0 if layouts is None else layouts.known[-1].partitions
    for topic in pipeline.changelogs:
        if counts[topic] > counts[pipeline.source] and counts[topic] != grown:
            raise StreamsError(
                f"{topic} has {counted(counts[topic], 'partition')}, {pipeline.source} has {counts[pipeline.source]}: "
                "state lives beside its source, the source cannot have fewer"
            )
        if counts[topic] < counts[pipeline.source]:
            log.warning(
                "a topic with state has fewer partitions than the source: the source's further partitions are not "
                "consumed",
                topic=topic, partitions=counts[topic], source=pipeline.source,
                source_partitions=counts[pipeline.source],
            )  # fmt: skip
    for one in pipeline.further_inputs:
        if counts[one.topic] > counts[pipeline.source] and not counts[one.topic] % counts[pipeline.source]:
            if counts[one.topic] != grown:  # else it has got its partitions, and the source gets them next
                log.warning(
                    "an input has more partitions than the source: the further ones are not consumed until the flow "
                    "is grown, too",
                    topic=one.topic, partitions=counts[one.topic], source=pipeline.source,
                    source_partitions=counts[pipeline.source], grow=f"streams topics grow {pipeline.source}",
                )  # fmt: skip
        elif counts[one.topic] != counts[pipeline.source]:
            raise StreamsError(
                f"{one.topic} has {counted(counts[one.topic], 'partition')}, {pipeline.source} has "
                f"{counts[pipeline.source]}: {pipeline.name} merges them, so that both must have equally many, filled "
                "by the same partitioner (murmur2)"
            )
    consumed = state_partitions(pipeline, counts) if layouts is None else layouts.before.partitions
    for topic in (*pipeline.event_outputs, *(one.dlq for one in pipeline.inputs)):
        if counts[topic] < consumed:
            raise StreamsError(
                f"{topic} has {counted(counts[topic], 'partition')}, {pipeline.journal} has {consumed}: "
                f"give {topic} {counted(consumed, 'partition')} (kafka-topics.sh --alter --partitions)"
            )
