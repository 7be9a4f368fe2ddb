"""The schema registry of the local stack: Apicurio, through its Confluent-compatible API, on loopback only."""

import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path

from streams.local import artifacts, ports
from streams.local.processes import ManagedProcess
from streams.local.progress import Progress
from streams.local.security import NAME, Security

HEAP_MB = 384
API = "/apis/ccompat/v7"
REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Registry:
    """The registry. Its schemas lie in `registry/` of the directory and survive restarts, also on another port."""

    directory: Path
    port: int
    security: Security | None = None
    """None: plain HTTP. Its schemas are in a database of its own: it connects to no Kafka."""

    title = "schema registry"

    @property
    def process(self) -> ManagedProcess:
        """Its background process."""
        return ManagedProcess("registry", self.directory)

    @property
    def address(self) -> str:
        """The value for SCHEMA_REGISTRY_URL."""
        return f"http{'' if self.security is None else 's'}://{ports.HOST}:{self.port}{API}"

    def fetch(self, progress: Progress) -> None:
        """Make everything it needs present on this machine."""
        artifacts.registry_home(progress)

    def launch(self, java: Path, progress: Progress) -> None:
        """Start the registry with its database in a file."""
        (self.directory / "registry").mkdir(exist_ok=True)
        properties = {
            "java.io.tmpdir": "tmp",
            "quarkus.http.host": ports.HOST,
            "quarkus.http.port": self.port,
            # Health and metrics of its own; by default it would listen on every interface, and two stacks would clash.
            "quarkus.management.host": ports.HOST,
            "quarkus.management.port": ports.free_port(self.port),
            "quarkus.http.access-log.enabled": "false",
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "h2",
            "apicurio.datasource.url": "jdbc:h2:file:./registry/registry",
        }
        if self.security is not None:
            self.security.make()
            properties |= {
                "quarkus.http.insecure-requests": "disabled",
                "quarkus.http.ssl-port": self.port,
                "quarkus.http.ssl.certificate.files": f"{NAME}/server.crt",
                "quarkus.http.ssl.certificate.key-files": f"{NAME}/server.key",
            }
        options = [f"-D{name}={value}" for name, value in properties.items()]
        jar = artifacts.registry_home(progress) / "quarkus-run.jar"
        machine = [f"-Xmx{HEAP_MB}m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
        self.process.rotate_log()
        self.process.start(java, [*machine, *options, "-jar", str(jar)])

    def settle(self) -> None:
        """Do nothing: the registry needs no further step when it has started."""

    def _connection(self) -> http.client.HTTPConnection:
        if self.security is None:
            return http.client.HTTPConnection(ports.HOST, self.port, timeout=REQUEST_TIMEOUT_S)
        context = ssl.create_default_context(cafile=self.security.ca)
        return http.client.HTTPSConnection(ports.HOST, self.port, timeout=REQUEST_TIMEOUT_S, context=context)

    def answers(self) -> bool:
        """Tell whether the registry lists its subjects now (its storage works, not just its port)."""
        try:
            connection = self._connection()
        except OSError:  # files of a secured stack are missing
            return False
        try:
            connection.request("GET", f"{API}/subjects")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
