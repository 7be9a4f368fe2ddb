"""Starting the demo: the stack, topics and schemas, the worker, the feeder.

Each is registered for the clean-up before it starts.
"""

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka.admin import AdminClient

from logistics.flows.dispatch import DISPATCH
from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from logistics.flows.tracking import TRACKING
from streams.demo.child import Child
from streams.demo.feed import Feeder
from streams.demo.order_watch import OrderWatch
from streams.demo.steps import Steps
from streams.demo.topic_probes import LagProbe, VehicleWatch
from streams.demo.worker_probe import READY, WorkerProbe
from streams.errors import StreamsError
from streams.flow.discover import select_pipelines
from streams.interrupts import Interrupts
from streams.kafka.admin import partition_counts, wait_for_broker
from streams.kafka.topics import TopicStatus, apply_topics
from streams.local import ports
from streams.local.stack import Stack
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry, wait_for_registry
from streams.schemas.registration import register_schemas
from streams.settings import Settings, load_settings

POLL_S: Final = 0.25
REGISTRY_WAIT_S: Final = 30.0
WEB_PORTS: Final = range(6066, 6116)
"""Where workers listen by default."""
FLOWS: Final = (GPS, ORDERS, DISPATCH, TRACKING)


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line says."""

    directory: Path
    kafka_port: int
    registry_port: int
    rate: int
    """Simulated records a second."""
    seconds: float | None = None
    """End by itself after showing for so long; None: never."""
    kill_interval_s: float | None = None
    """Kill the worker so long after it became ready, and start it again; None: never."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The parts, all of them running."""

    options: DemoOptions
    stack: Stack
    worker: Child
    feeder: Feeder
    worker_probe: WorkerProbe
    lag_probe: LagProbe
    vehicles: VehicleWatch
    orders: OrderWatch
    metrics_url: str
    left_running: bool
    """Whether the stack ran before, and so stays."""

    def check(self) -> None:
        """Do nothing as long as everything runs; begin the next phase of feeding when it is time.

        Raises:
            StreamsError: something has ended by itself; the message says what it said last.

        """
        for service in self.stack.services:
            if service.process.find() is None:
                raise StreamsError(
                    f"{service.title} ended by itself: {service.process.last_words()} (log: {service.process.log})"
                )
        self.worker.check()
        self.feeder.check()


def start(options: DemoOptions, cleanup: ExitStack, interrupts: Interrupts, steps: Steps) -> Demo:
    """Start everything; `cleanup` stops it in reverse order: the feeder, the worker, the stack unless it ran before.

    Raises:
        StreamsError: something cannot start; the message says what to do.
        KeyboardInterrupt: asked to stop.

    """
    stack, left_running = _start_stack(options, cleanup, steps)
    interrupts.check()
    settings = load_settings(
        kafka_bootstrap_servers=stack.bootstrap_servers,
        schema_registry_url=stack.registry_url,
        kafka_security_protocol="PLAINTEXT",
    )
    catalog = Catalog.load()
    client = wait_for_broker(settings)
    _prepare(client, catalog, settings, steps)
    interrupts.check()
    partitions = partition_counts(client)[GPS.source]
    environment = _environment(stack)
    logs = stack.directory / "logs"
    web_port = next(filter(ports.is_free, WEB_PORTS), 0) or ports.free_port()
    probe = WorkerProbe(web_port, GPS.name, GPS.source)
    feeder = Feeder(
        settings, GPS, rate=options.rate, log=logs / "traffic.log", environment=environment, interrupts=interrupts
    )
    table = GPS.tables[0]
    vehicles = cleanup.enter_context(
        VehicleWatch(settings, table.topic, partitions, catalog.latest(table.subject).parsed, feeder.device_prefix)
    )
    tracking, _, verified = TRACKING.row_outputs
    followed = {one.topic: catalog.latest(one.subject).parsed for one in (tracking, verified)}
    orders = cleanup.enter_context(OrderWatch(settings, followed, partitions))
    worker = Child(
        "the worker",
        _worker_arguments(stack.directory / "worker", web_port),
        log=logs / "worker.log",
        environment=environment,
        interrupts=interrupts,
    )
    steps.step(f"starting the worker on port {web_port}")
    cleanup.callback(worker.stop)
    worker.start()
    _await_ready(worker, probe, interrupts, steps)
    cleanup.callback(feeder.stop)
    feeder.start()
    lag_probe = LagProbe(settings, GPS.group, GPS.source, partitions)
    cleanup.callback(lag_probe.close)
    metrics_url = f"http://{ports.HOST}:{web_port}/metrics"
    return Demo(options, stack, worker, feeder, probe, lag_probe, vehicles, orders, metrics_url, left_running)


def _start_stack(options: DemoOptions, cleanup: ExitStack, steps: Steps) -> tuple[Stack, bool]:
    """Use the stack that runs in the directory, or start one that is stopped at the end; tell whether it ran."""
    stack = Stack(options.directory, options.kafka_port, options.registry_port, steps)
    ran_before = any(service.process.find() is not None for service in stack.services)
    if not ran_before:
        # It finds its servers by the directory: this stops them even if `start` is left by an exception.
        cleanup.callback(stack.stop)
    started = stack.start()
    if ran_before:
        how = "was incomplete and is complete again" if started else "already runs"
        steps.note(f"The stack in {options.directory} {how}; it is used, and left running at the end.")
    return stack, ran_before


def _prepare(client: AdminClient, catalog: Catalog, settings: Settings, steps: Steps) -> None:
    """Topics and schemas, as `streams topics apply` does it."""
    steps.step("creating topics")
    for state in apply_topics(client, select_pipelines(None, prefix=settings.streams_topic_prefix)):
        if state.status is TopicStatus.DRIFT:
            steps.note(f"Topic {state.name} differs from its declaration: {'; '.join(state.drift)}.")
    steps.step("registering schemas")
    registry = Registry(settings)
    wait_for_registry(registry, timeout_s=REGISTRY_WAIT_S)
    for one in register_schemas(catalog, registry):
        if one.reasons:
            raise StreamsError(f"refused: {one.subject} version {one.version}: {one.reasons[0]}")


def _environment(stack: Stack) -> Mapping[str, str]:
    """The caller's, pointed to the local stack: no address, secret or TLS setting of another cluster is left in it."""
    dropped = ("KAFKA_", "SCHEMA_REGISTRY_", "STREAMS_WEB_HOST")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, **stack.environment()}


def _worker_arguments(data_dir: Path, web_port: int) -> list[str]:
    flows = [flag for flow in FLOWS for flag in ("--pipeline", flow.name)]
    flags = [*flows, "--data-dir", str(data_dir), "--web-port", str(web_port)]
    return ["-m", "streams", "worker", *flags]


def _await_ready(worker: Child, probe: WorkerProbe, interrupts: Interrupts, steps: Steps) -> None:
    """Wait as long as the worker runs: restoring a large state takes its time."""
    while (state := probe.sample(time.monotonic()).state) != READY:
        steps.detail(f"the worker is starting: {state}")
        worker.check()
        interrupts.check()
        time.sleep(POLL_S)
