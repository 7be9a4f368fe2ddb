"""Starting the demo: the stack, topics and schemas, then the worker, the monitor and the gateway side by side.

Each is registered for the clean-up before it starts.
"""

import http.client
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from confluent_kafka.admin import AdminClient

from logistics.flows.dispatch import DISPATCH
from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from logistics.flows.tracking import TRACKING
from streams.demo.child import Child
from streams.demo.feed import Feeder
from streams.demo.monitor_probe import MonitorProbe
from streams.demo.order_watch import OrderWatch
from streams.demo.parts import Demo, DemoOptions, Links
from streams.demo.sinks import NAMES, Targets
from streams.demo.steps import Steps
from streams.demo.topic_probes import LagProbe, VehicleWatch
from streams.demo.worker_probe import READY, WorkerProbe
from streams.errors import StreamsError
from streams.flow.discover import select_pipelines
from streams.interrupts import Interrupts
from streams.kafka.admin import partition_counts, wait_for_broker
from streams.kafka.topics import TopicState, TopicStatus, apply_topics
from streams.local import ports
from streams.local.stack import Stack
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry, wait_for_registry
from streams.schemas.registration import register_schemas
from streams.settings import Settings, load_settings

POLL_S: Final = 0.25
ASK_S_MAX: Final = 2.0
REGISTRY_WAIT_S: Final = 30.0
WEB_PORTS: Final = range(6066, 6116)
"""Where workers listen by default."""
FLOWS: Final = (GPS, ORDERS, DISPATCH, TRACKING)


@dataclass(frozen=True, slots=True)
class _Ports:
    """Where the Python processes listen."""

    worker: int
    monitor: int
    gateway: int

    @classmethod
    def choose(cls, options: DemoOptions, steps: Steps) -> "_Ports":
        worker = next(filter(ports.is_free, WEB_PORTS), 0) or ports.free_port()
        monitor = _free(options.monitor_port, "the monitor", steps)
        return cls(worker, monitor, _free(options.gateway_port, "the gateway", steps, monitor))

    @property
    def links(self) -> Links:
        monitor = f"http://{ports.HOST}:{self.monitor}"
        return Links(
            fleet=f"{monitor}/fleet",
            monitor=f"{monitor}/",
            dead_letters=f"{monitor}/dead-letters",
            gateway=f"http://{ports.HOST}:{self.gateway}/v1/events/{GPS.source}",
            metrics=f"http://{ports.HOST}:{self.worker}/metrics",
        )


def start(options: DemoOptions, cleanup: ExitStack, interrupts: Interrupts, steps: Steps) -> Demo:
    """Start everything; `cleanup` stops it in reverse order: the feeder, the processes, the stack unless it ran before.

    Raises:
        StreamsError: something cannot start; the message says what to do.
        KeyboardInterrupt: asked to stop.

    """
    stack, left_running = _start_stack(options, cleanup, steps)
    interrupts.check()
    targets = _start_targets(stack, cleanup, steps) if options.has_sinks else None
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
    at = _Ports.choose(options, steps)
    environment = {**_environment(stack, at), **({} if targets is None else targets.environment)}
    logs = stack.directory / "logs"

    def child(title: str, name: str, *arguments: str) -> Child:
        made = Child(
            title, ["-m", "streams", *arguments],
            log=logs / f"{name}.log", environment=environment, interrupts=interrupts,
        )  # fmt: skip
        cleanup.callback(made.stop)
        made.start()
        return made

    steps.step(f"starting the worker on port {at.worker}, the monitor on {at.monitor}, the gateway on {at.gateway}")
    data = str(stack.directory / "worker")
    flows = [flag for flow in FLOWS for flag in ("--pipeline", flow.name)]
    worker = child("the worker", "worker", "worker", *flows, "--data-dir", data, "--web-port", str(at.worker))
    monitor = child("the monitor", "monitor", "monitor", "--web-port", str(at.monitor))
    gateway = child("the gateway", "gateway", "gateway", "--web-port", str(at.gateway))
    feeder = Feeder(
        settings, GPS, rate=options.rate, log=logs / "traffic.log", environment=environment, interrupts=interrupts,
        rate_file=stack.directory / "demo.json",
    )  # fmt: skip
    table = GPS.tables[0]
    vehicles = cleanup.enter_context(
        VehicleWatch(settings, table.topic, partitions, catalog.latest(table.subject).parsed, feeder.device_prefix)
    )
    tracking, _, verified = TRACKING.row_outputs
    followed = {one.topic: catalog.latest(one.subject).parsed for one in (tracking, verified)}
    orders = cleanup.enter_context(OrderWatch(settings, followed, partitions))
    lag_probe = LagProbe(settings, GPS.group, GPS.source, partitions)
    cleanup.callback(lag_probe.close)
    probe = WorkerProbe(at.worker, {flow.name: [one.topic for one in flow.inputs] for flow in FLOWS})
    _await_worker(worker, probe, interrupts, steps)
    cleanup.callback(feeder.stop)
    feeder.start()
    for one, port in ((monitor, at.monitor), (gateway, at.gateway)):
        _await_ready(one, port, interrupts, steps)
    sinks = [child(f"the sink {name}", name, "sink", name, "--web-port", "0") for name in NAMES if targets is not None]
    return Demo(
        options=options, settings=settings, flow=GPS, partitions=partitions, stack=stack, environment=environment,
        worker=worker,
        others=(monitor, gateway, *sinks), targets=targets, feeder=feeder, worker_probe=probe,
        monitor_probe=MonitorProbe(at.monitor),
        lag_probe=lag_probe, vehicles=vehicles, orders=orders, links=at.links, left_running=left_running,
    )  # fmt: skip


def _start_stack(options: DemoOptions, cleanup: ExitStack, steps: Steps) -> tuple[Stack, bool]:
    """Use the stack that runs in the directory, or start one that is stopped at the end; tell whether it ran."""
    stack = Stack(options.directory, options.kafka_port, options.registry_port, steps)
    ran_before = any(service.process.find() is not None for service in stack.services)
    if not ran_before:
        kafka = _free(options.kafka_port, "Kafka", steps)
        registry = _free(options.registry_port, "the schema registry", steps, kafka)
        stack = Stack(options.directory, kafka, registry, steps)
        # It finds its servers by the directory: this stops them even if `start` is left by an exception.
        cleanup.callback(stack.stop)
    started = stack.start()
    if ran_before:
        how = "was incomplete and is complete again" if started else "already runs"
        steps.note(f"The stack in {options.directory} {how}; it is used, and left running at the end.")
    return stack, ran_before


def _start_targets(stack: Stack, cleanup: ExitStack, steps: Steps) -> Targets:
    steps.step("starting PostgreSQL")
    return Targets(stack.directory, cleanup)


def _free(port: int, what: str, steps: Steps, *taken: int) -> int:
    """The port, or a free one where it is 0 or taken, which is said."""
    if port and port not in taken and ports.is_free(port):
        return port
    found = ports.free_port(*taken)
    if port:
        steps.note(f"Port {port} is taken by another program: {what} listens on {found}.")
    return found


def _prepare(client: AdminClient, catalog: Catalog, settings: Settings, steps: Steps) -> None:
    """Topics and schemas, as `streams topics apply` does it, at the same time."""
    steps.step("creating topics, registering schemas")
    with ThreadPoolExecutor(1, "demo-topics") as aside:
        creating = aside.submit(apply_topics, client, select_pipelines(None, prefix=settings.streams_topic_prefix))
        registry = Registry(settings)
        wait_for_registry(registry, timeout_s=REGISTRY_WAIT_S)
        for one in register_schemas(catalog, registry):
            if one.reasons:
                raise StreamsError(f"refused: {one.subject} version {one.version}: {one.reasons[0]}")
        _say_drift(creating.result(), steps)


def _say_drift(states: list[TopicState], steps: Steps) -> None:
    for state in states:
        if state.status is TopicStatus.DRIFT:
            steps.note(f"Topic {state.name} differs from its declaration: {'; '.join(state.drift)}.")


def _environment(stack: Stack, at: _Ports) -> Mapping[str, str]:
    """The caller's, pointed to the local stack: no address, secret or TLS setting of another cluster is left in it."""
    dropped = ("KAFKA_", "SCHEMA_REGISTRY_", "STREAMS_WEB_HOST")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    ours = {
        "STREAMS_DATA_DIR": str(stack.directory / "data"),
        "STREAMS_MONITOR_WORKERS": f"http://{ports.HOST}:{at.worker}",
    }
    return {**kept, **ours, **stack.environment()}


def _await_worker(worker: Child, probe: WorkerProbe, interrupts: Interrupts, steps: Steps) -> None:
    """Wait as long as the worker runs: restoring a large state takes its time."""
    while (state := probe.sample(time.monotonic()).state) != READY:
        steps.detail(f"the worker is starting: {state}")
        worker.check()
        interrupts.check()
        time.sleep(POLL_S)


def _await_ready(child: Child, port: int, interrupts: Interrupts, steps: Steps) -> None:
    while not _is_ready(port):
        steps.detail(f"{child.title} is starting")
        child.check()
        interrupts.check()
        time.sleep(POLL_S)


def _is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(ports.HOST, port, timeout=ASK_S_MAX)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
