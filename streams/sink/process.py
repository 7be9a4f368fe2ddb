"""The process of one sink: a consumer of its topic, a thread that writes, a web server. `run` blocks until stopped."""

import asyncio
import queue
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

import structlog
from confluent_kafka import KafkaException, TopicPartition

from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.admin import partition_counts_with_leaderless, topic_id, wait_for_broker
from streams.kafka.changelog import KafkaChangelog
from streams.limits import SINK_BATCH_SHARE, SINK_RECORDS_MAX
from streams.listening import listening
from streams.resilience.breaker import Guard
from streams.resilience.retry import Retrier
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.schemas.plans import plan_or_reject
from streams.settings import Settings
from streams.sink.core import SinkCore, SinkLimits
from streams.sink.declared import declared_sink
from streams.sink.decoding import RowDecoder
from streams.sink.guarded import GuardedTarget
from streams.sink.letters import KafkaLetters
from streams.sink.metrics import SinkMetrics
from streams.sink.targets import target_of
from streams.sink.writing import Writer
from streams.sinks.spec import DeltaSpec, HttpSpec, SinkSpec
from streams.sources.kafka.intake import Intake
from streams.worker.web import Web

log = structlog.get_logger(__name__)

DEFAULT_PORT: Final = 6080
_PORTS: Final = 50
_DRAIN_S: Final = 10.0
"""How long what was gathered may take to be written when the process is stopped."""
_ENDS_S: Final = 5.0


class Worker:
    """Does one thing after the other in a thread of its own; one that hangs does not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Any]) -> "Future[Any]":
        """Have `work` done; the future gets what it returns or raises."""
        future: Future[Any] = Future()
        self._work.put((future, work))
        return future

    def close(self, timeout_s: float) -> bool:
        """End the thread after what it is doing; whether it has ended."""
        self._work.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            future, work = item
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
                future.set_exception(error)
            del item, future, work


class SinkProcess:
    """Everything of one process of a sink; start more of them to share the partitions."""

    def __init__(
        self, settings: Settings, pipeline: Pipeline, spec: SinkSpec, *, web_port: int | None, host: str | None = None
    ) -> None:
        """Check what a sink needs before it starts.

        Raises:
            UsageError: a library, a variable or a field is missing.
            StreamsError: no broker, topics missing, port taken.

        """
        # A process of a sink has no state: others take its partitions over at once.
        self._settings = settings = settings.model_copy(update={"streams_group_static": False})
        self._is_kept_by_group = isinstance(spec, HttpSpec)
        """Whether the sink's position is kept in its group only."""
        self._sink = sink = declared_sink(pipeline, spec, Catalog.load())
        self._admin = wait_for_broker(settings)
        counts = partition_counts_with_leaderless(self._admin)
        missing = [name for name in (spec.topic, sink.dead_letters) if name not in counts]
        if missing:
            raise StreamsError(f"topics are missing ({', '.join(missing)}): create them with `streams topics apply`")
        self._topic_id = topic_id(self._admin, spec.topic)
        self._stop = threading.Event()
        self._changelog = KafkaChangelog(settings, group=sink.group, source=spec.topic, retrier=Retrier(self._stop))
        self.metrics = SinkMetrics(spec.name)
        name = f"sink_{spec.name}"
        self._target = GuardedTarget(
            target_of(sink, settings, topic_id=self._topic_id, committed=self._committed),
            Guard(name, on_state=self.metrics.breaker_state.labels(name).set),
        )
        self._failure: BaseException | None = None
        self._beyond: frozenset[int] = frozenset()
        self._worker = Worker(f"sink-{spec.name}")
        self._letters = KafkaLetters(settings, topic=sink.dead_letters, source=spec.topic, group=sink.group)
        registry = Registry(settings)
        resolve = partial(plan_or_reject, registry, reader=sink.schema)
        decoder = RowDecoder(sink.columns, resolve, has_tombstones=sink.has_tombstones)
        rows = SINK_RECORDS_MAX * (10 if isinstance(spec, DeltaSpec) else 1)
        bytes_max = int((settings.streams_memory_mb_max << 20) * SINK_BATCH_SHARE)
        self.core = SinkCore(
            spec.name, self._target, Writer(self._target, decoder, self._letters, key=sink.key),
            bounds=lambda partition: self._changelog.bounds(spec.topic, partition), submit=self._worker.submit,
            limits=SinkLimits(rows, bytes_max, spec.linger_ms), metrics=self.metrics, commit=self._commit,
            now_s=time.monotonic, wall_ms=lambda: time.time_ns() // 1_000_000,
        )  # fmt: skip
        self._intake = Intake(
            settings, source=spec.topic, group=sink.group, member=f"{sink.group}-{uuid.uuid4().hex[:8]}",
            ownership=self.core, on_lost_records=self._lost,
        )  # fmt: skip
        self.core.attach(self._intake)
        ports = range(DEFAULT_PORT, DEFAULT_PORT + _PORTS) if web_port is None else [web_port]
        listener: socket.socket = listening(host or settings.streams_web_host, ports)
        self._web = Web(self.metrics.registry, self._unready, listener=listener)

    def run(self) -> None:
        """Copy until SIGTERM or SIGINT; what was read and not written is read again by the next process.

        Raises:
            StreamsError: it had to stop by itself.

        """
        asyncio.run(self._main())
        if self._failure is not None:
            if isinstance(self._failure, StreamsError):
                raise self._failure
            raise StreamsError(f"stopped after an unexpected error: {self._failure!r}") from self._failure

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        await self._web.start()
        await asyncio.to_thread(self._copy)
        await self._web.stop()

    def _copy(self) -> None:
        """The loop of the thread that reads."""
        try:
            self._intake.subscribe()
            while not self._stop.is_set():
                self.core.step()
                self._look_at_topic()
            self.core.drain(time.monotonic() + _DRAIN_S)
        except Exception as error:  # noqa: BLE001 - raised again by `run`
            self._fail(error)
        finally:
            self._end()

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        if isinstance(error, StreamsError):
            log.error("stopping", sink=self._sink.spec.name, error=str(error))
        else:
            log.error("stopping after an unexpected error", sink=self._sink.spec.name, exc_info=error)

    def _end(self) -> None:
        """Close the consumer and the target, in a bounded time, whatever the target does."""
        try:
            self._intake.close()
        except (KafkaException, RuntimeError) as error:
            log.warning("the consumer could not be closed", error=str(error))
        self._changelog.close()
        if not self._worker.close(_ENDS_S):
            log.warning("the target has not answered; what it was given is fenced", sink=self._sink.spec.name)
        self._letters.close()
        self._target.close()

    def _look_at_topic(self) -> None:
        """Check that offsets in the target belong to this topic, not to another one of its name."""
        beyond = self._intake.take_beyond_end()
        if not (self._intake.take_suspicion() or beyond):
            return
        topic = self._sink.spec.topic
        if topic_id(self._admin, topic) != self._topic_id:
            raise StreamsError(
                f"{topic} was created again: start the sink again, and it reads the new topic from its beginning"
            )
        self._beyond |= beyond

    def _unready(self) -> str | None:
        if self._beyond:
            partitions = ", ".join(map(str, sorted(self._beyond)))
            return (
                f"the target has records of {self._sink.spec.topic} that the topic has lost (partitions {partitions}): "
                "runbook sink-stalled"
            )
        return self.core.unready()

    def _lost(self, partition: int, first: int, end: int) -> None:
        log.error(
            "records were deleted before the sink had read them", topic=self._sink.spec.topic, partition=partition,
            first=first, end=end,
        )  # fmt: skip
        self.metrics.records_lost.labels(self._sink.spec.topic).inc(end - first)

    def _committed(self, partitions: Collection[int]) -> Mapping[int, int]:
        found = self._changelog.committed(sorted(partitions))
        return {partition: -1 if one is None else one.offset_next for partition, one in found.items()}

    def _commit(self, offsets: Mapping[int, int]) -> None:
        """Commit to the group, so that its lag is visible. In the thread that polls."""
        topic = self._sink.spec.topic
        places = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        try:
            if self._is_kept_by_group:
                self._intake.consumer.commit(offsets=places, asynchronous=False)
            else:
                self._intake.consumer.commit(offsets=places)
        except (KafkaException, RuntimeError) as error:
            log.debug("the group was not told", error=str(error))
