"""The Kafka broker of the local stack: one KRaft node, broker and controller, on the loopback interface only."""

import base64
import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.errors import StreamsError
from streams.flow.discover import declared_map, select_pipelines
from streams.local import artifacts, ports
from streams.local.processes import ManagedProcess
from streams.local.progress import Progress
from streams.local.security import BROKER_PROPERTIES, Security
from streams.settings import variable

HEAP_MB = 1024
FORMAT_TIMEOUT_S = 60.0
METADATA_TIMEOUT_S = 3.0
SETTINGS = "kafka.properties"
DATA = "kafka"
"""Where the topics live, relative to the stack's directory, which is the process's working directory: so no character
of that directory's name can break a configuration file."""

PROPERTIES = f"""\
# Written at each start; changes are lost.
process.roles=broker,controller
node.id=1
listeners=CLIENTS://{ports.HOST}:%(port)d,CONTROLLER://{ports.HOST}:%(controller_port)d%(internal)s%(detour)s
advertised.listeners=CLIENTS://{ports.HOST}:%(port)d%(internal)s%(advertised_detour)s
listener.security.protocol.map=%(protocols)s
inter.broker.listener.name=%(inter_broker)s
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{ports.HOST}:%(controller_port)d
log.dirs={DATA}

# Topics are declared, never made by a misspelt name.
auto.create.topics.enable=false
num.partitions=3

# One node: nothing can be replicated.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# Quick starts, joins and recovery.
offsets.topic.num.partitions=8
transaction.state.log.num.partitions=8
share.coordinator.state.topic.num.partitions=2
group.initial.rebalance.delay.ms=0
# With the consumer group protocol sessions are the broker's matter (defaults: 45 s and 5 s).
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=10000
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.cleaner.dedupe.buffer.size=33554432
# After a crash the controller lets the broker back in only when the session of its former life is over (default: 9 s).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
%(further)s"""
_PLAIN = {
    "protocols": "CLIENTS:PLAINTEXT,DETOUR:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter_broker": "CLIENTS",
    "internal": "",
}
_SECURED = {
    "protocols": "CLIENTS:SASL_SSL,DETOUR:SASL_SSL,INTERNAL:SSL,CONTROLLER:SSL",
    "inter_broker": "INTERNAL",
}
_INTERNAL = re.compile(r"INTERNAL://([^,\s]+)")

LOG4J = """\
# Written at each start; changes are lost.
status = error
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{ISO8601} %p %m (%c{1})%n
rootLogger.level = INFO
rootLogger.appenderRef.stdout.ref = stdout
logger.config.name = org.apache.kafka.common.config
logger.config.level = WARN
"""


@dataclass(frozen=True)
class Detour:
    """A second listener on `port` that tells its clients to come back to `advertised_port`: to a proxy in front of it.

    A client goes where the broker's metadata says, so a proxy is on its way only if the broker names the proxy.
    """

    port: int
    advertised_port: int


@dataclass(frozen=True)
class Extension:
    """Further settings of the broker, and options of its Java, that a stack is started with."""

    properties: tuple[str, ...] = ()
    java: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kafka:
    """The broker. Its data lies in `kafka/` of the directory and survives restarts, also on another port."""

    directory: Path
    port: int
    detour: Detour | None = None
    security: Security | None = None
    """None: plaintext, and everybody may do everything."""
    extension: Extension = Extension()

    title = "Kafka"

    @property
    def process(self) -> ManagedProcess:
        """Its background process."""
        return ManagedProcess("kafka", self.directory)

    @property
    def address(self) -> str:
        """The value for KAFKA_BOOTSTRAP_SERVERS."""
        return f"{ports.HOST}:{self.port}"

    def fetch(self, progress: Progress) -> None:
        """Make everything it needs present on this machine."""
        artifacts.kafka_class_path(progress)

    def launch(self, java: Path, progress: Progress) -> None:
        """Start the broker; format its storage before the first start.

        Raises:
            StreamsError: the storage cannot be formatted.

        """
        class_path = ":".join(map(str, artifacts.kafka_class_path(progress)))
        controller_port = ports.free_port(self.port)
        values: dict[str, object] = {"port": self.port, "controller_port": controller_port, **self._detour_listeners()}
        values |= self._listeners(self.port, controller_port)
        (self.directory / SETTINGS).write_text(PROPERTIES % values, encoding="ascii")
        (self.directory / "log4j2.properties").write_text(LOG4J, encoding="ascii")
        options = [
            *self.extension.java,
            "-XX:-UsePerfData",
            "-Djava.io.tmpdir=tmp",
            "-Dlog4j2.configurationFile=log4j2.properties",
            "-cp",
            class_path,
        ]
        self.process.rotate_log()
        if not (self.directory / DATA / "meta.properties").exists():
            self._format(java, options)
        self.process.start(java, ["-Xms256m", f"-Xmx{HEAP_MB}m", *options, "kafka.Kafka", SETTINGS])

    def _detour_listeners(self) -> dict[str, str]:
        if self.detour is None:
            return {"detour": "", "advertised_detour": ""}
        own, advertised = self.detour.port, self.detour.advertised_port
        return {
            "detour": f",DETOUR://{ports.HOST}:{own}",
            "advertised_detour": f",DETOUR://{ports.HOST}:{advertised}",
        }

    def _listeners(self, *taken: int) -> dict[str, str]:
        further = "".join(f"{line}\n" for line in self.extension.properties)
        if self.security is None:
            return {**_PLAIN, "further": further}
        self.security.make()
        internal = f",INTERNAL://{ports.HOST}:{ports.free_port(*taken)}"
        return {**_SECURED, "internal": internal, "further": BROKER_PROPERTIES + further}

    def _own_client(self) -> AdminClient:
        """A client that may do everything."""
        config: dict[str, str | int | float | bool] = {"bootstrap.servers": self.address}
        if self.security is not None:
            found = _INTERNAL.search((self.directory / SETTINGS).read_text(encoding="ascii"))
            config |= self.security.as_server(found[1] if found else self.address)
        return AdminClient(config, logger=_silent_logger())

    def settle(self) -> None:
        """Make the principals of a secured stack, and give them their rights for the flows of the app in force.

        Raises:
            UsageError: the flows cannot be imported.
            StreamsError: the broker refuses, or does not answer.

        """
        if self.security is not None:
            prefix = variable("STREAMS_TOPIC_PREFIX") or ""
            shown = declared_map(prefix=prefix)
            topics = frozenset[str]() if shown is None else shown.topics
            self.security.grant(self._own_client(), select_pipelines(None, prefix=prefix), topics)

    def answers(self) -> bool:
        """Tell whether the broker answers a metadata request now."""
        if not ports.is_open(self.port):
            return False
        try:
            client = self._own_client()
        except (OSError, KafkaException):  # files of a secured stack are missing
            return False
        try:
            return len(client.list_topics(timeout=METADATA_TIMEOUT_S).brokers) > 0
        except KafkaException:
            return False

    def _format(self, java: Path, options: list[str]) -> None:
        tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", new_cluster_id()]
        status = self.process.run([java, "-XX:TieredStopAtLevel=1", *options, *tool, "-c", SETTINGS], FORMAT_TIMEOUT_S)
        if status != 0 or not (self.directory / DATA / "meta.properties").exists():
            raise StreamsError(
                f"Kafka cannot format its storage in {self.directory / DATA}: {self.process.last_words()} "
                f"(log: {self.process.log})"
            )


def new_cluster_id(random_bytes: Callable[[], bytes] = lambda: uuid.uuid4().bytes) -> str:
    """A cluster id as Kafka makes them: 16 bytes in URL-safe base64, never with a dash in front.

    Kafka's own generator leaves those out too: its tools would take one for an option.
    """
    while True:
        cluster_id = base64.urlsafe_b64encode(random_bytes()).decode("ascii").rstrip("=")
        if not cluster_id.startswith("-"):
            return cluster_id


def _silent_logger() -> logging.Logger:
    """Swallow the client's own complaints: that a broker does not answer is the result here, not an error."""
    logger = logging.getLogger("streams.local.probe")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
