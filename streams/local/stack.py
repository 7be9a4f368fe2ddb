"""The local stack as a whole: up, down, status; and an object for programs that need a stack of their own.

Guarantees: `start` returns when both servers answer real requests, or raises and leaves nothing running that it
started; starting twice is the same as once; data survives `stop` and crashes; stacks of different directories and ports
are independent of each other. A directory holds `kafka/` and `registry/` (data), `logs/`, `run/`, `stack.json` (ports),
a secured one `security/` as well.
"""

import fcntl
import json
import signal
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from streams.errors import StreamsError, UsageError
from streams.local import artifacts, ports
from streams.local.kafka import Detour, Extension, Kafka
from streams.local.processes import stop_all
from streams.local.progress import Progress, Silent
from streams.local.registry import Registry
from streams.local.security import ADMIN, Security
from streams.local.services import Service

START_TIMEOUT_S = 120.0
"""Both servers are up in a few seconds; a busy machine may take this long."""
POLL_S = 0.1
PORTS_FILE = "stack.json"
FLAGS = {"kafka": "--kafka-port", "registry": "--registry-port"}


class State(StrEnum):
    """How a server is."""

    RUNNING = "running"
    STOPPED = "stopped"
    CRASHED = "crashed"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class ServiceStatus:
    """How one server is, and where to look when it should be otherwise."""

    name: str
    state: State
    pid: int | None
    port: int | None
    address: str | None
    log: Path
    detail: str


class Stack:
    """One broker and one registry in one directory. Not to be shared between threads."""

    def __init__(
        self,
        directory: Path,
        kafka_port: int = 0,
        registry_port: int = 0,
        progress: Progress | None = None,
        detour: Detour | None = None,
        *,
        secure: bool = False,
        extension: Extension | None = None,
    ) -> None:
        """Describe a stack; nothing is started. Port 0: any free one, known after `start`.

        `secure`: TLS, a password per role, rights per role (`streams.local.security`).
        """
        self._progress = progress or Silent()
        self.directory = directory.absolute()
        self.security = Security(self.directory) if secure else None
        self.kafka = Kafka(self.directory, kafka_port, detour, self.security, extension or Extension())
        self.registry = Registry(self.directory, registry_port, self.security)

    @property
    def services(self) -> tuple[Service, Service]:
        """The broker and the registry."""
        return self.kafka, self.registry

    @property
    def bootstrap_servers(self) -> str:
        """Where Kafka clients connect to."""
        return self.kafka.address

    @property
    def registry_url(self) -> str:
        """Where registry clients connect to."""
        return self.registry.address

    @property
    def kafka_pid(self) -> int | None:
        """The broker's process, None while it does not run."""
        found = self.kafka.process.find()
        return found.pid if found else None

    @property
    def registry_pid(self) -> int | None:
        """The registry's process, None while it does not run."""
        found = self.registry.process.find()
        return found.pid if found else None

    def environment(self, role: str = ADMIN) -> dict[str, str]:
        """The variables that point every command of this project to this stack; a secured one is used as a `role`."""
        address = {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers, "SCHEMA_REGISTRY_URL": self.registry_url}
        return address if self.security is None else {**address, **self.security.client(role)}

    def start(self) -> bool:
        """Start what does not run yet; return when both answer. False: both ran already.

        Raises:
            StreamsError: it cannot start, or runs on other ports; one line that says why and what to do.

        """
        with _locked(self.directory):
            self._choose_ports()
            missing = [service for service in self.services if service.process.find() is None]
            self._start(missing)
        return bool(missing)

    def stop(self) -> list[str]:
        """Stop both; the data stays. Returns the names of those that ran."""
        if not (self.directory / "run").is_dir():
            return []
        with _locked(self.directory):
            return stop_all(service.process for service in self.services)

    def restart_kafka(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the broker by a signal (SIGKILL: a crash), start it on the same port, return when it answers."""
        with _locked(self.directory):
            stop_all([self.kafka.process], how)
            self._start([self.kafka])

    def stop_registry(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the registry only."""
        with _locked(self.directory):
            stop_all([self.registry.process], how)

    def start_registry(self) -> None:
        """Start the registry only, on the same port; return when it answers."""
        with _locked(self.directory):
            if self.registry.process.find() is None:
                self._start([self.registry])

    def status(self) -> list[ServiceStatus]:
        """Ask both servers how they are, now."""
        return [_status(name, service) for name, service in zip(FLAGS, self.services, strict=True)]

    def _choose_ports(self) -> None:
        wanted = {"kafka": self.kafka.port, "registry": self.registry.port}
        recorded = recorded_ports(self.directory)
        processes = {"kafka": self.kafka.process, "registry": self.registry.process}
        running = [name for name, process in processes.items() if process.find() is not None]
        for name in running:
            wanted[name] = wanted[name] or recorded.get(name, 0)
            if wanted[name] != recorded.get(name):
                raise StreamsError(
                    f"the stack in {self.directory} already runs, with {FLAGS[name]} {recorded.get(name)}; "
                    f"stop it first (streams local down --dir {self.directory}) or give another --dir"
                )
        if running and is_recorded_secure(self.directory) != (self.security is not None):
            raise StreamsError(
                f"the stack in {self.directory} already runs, {'without' if self.security else 'with'} --secure; "
                f"stop it first (streams local down --dir {self.directory}) or give another --dir"
            )
        for name, port in wanted.items():
            wanted[name] = port or ports.free_port(*wanted.values())
        if wanted["kafka"] == wanted["registry"]:
            raise UsageError(f"--kafka-port and --registry-port are both {wanted['kafka']}: give two different ports")
        for name, port in wanted.items():
            if name not in running and not ports.is_free(port):
                raise StreamsError(
                    f"port {port} on {ports.HOST} is taken by another program: give another {FLAGS[name]}"
                )
        self.kafka = replace(self.kafka, port=wanted["kafka"])
        self.registry = replace(self.registry, port=wanted["registry"])
        record = {**wanted, "secure": self.security is not None}
        (self.directory / PORTS_FILE).write_text(json.dumps(record), encoding="utf-8")

    def _start(self, missing: list[Service]) -> None:
        java = artifacts.java() if missing else Path()
        (self.directory / "tmp").mkdir(exist_ok=True)
        for service in missing:
            service.fetch(self._progress)
        with ExitStack() as undo:
            # The registry takes longer, so it goes first; both start side by side.
            for service in reversed(missing):
                self._progress.step(f"starting {service.title} on port {service.port}")
                undo.callback(stop_all, [service.process])
                service.launch(java, self._progress)
            self._wait_until_answering(missing)
            for service in missing:
                service.settle()
            undo.pop_all()

    def _wait_until_answering(self, started: list[Service]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        waiting = [service for service in self.services if service in started or service.process.find() is not None]
        while waiting:
            for service in waiting:
                if service.process.find() is None:
                    raise StreamsError(_ended(service))
            waiting = [service for service in waiting if not _serves(service)]
            if waiting and time.monotonic() > deadline:
                raise StreamsError(
                    f"{waiting[0].title} on port {waiting[0].port} did not answer within {START_TIMEOUT_S:.0f} s; "
                    f"see {waiting[0].process.log}"
                )
            if waiting:
                self._progress.detail(f"waiting for {' and '.join(service.title for service in waiting)}")
                time.sleep(POLL_S)


def _serves(service: Service) -> bool:
    """Whether the service answers, and not another program on its port (a stack that was started at the same time)."""
    return service.process.listens_on(service.port) and service.answers()


def _ended(service: Service) -> str:
    """Why a service that was just started does not run any more."""
    if ports.is_open(service.port):
        flag = FLAGS[service.process.name]
        return f"port {service.port} on {ports.HOST} was taken by another program meanwhile: give another {flag}"
    return f"{service.title} stopped while starting: {service.process.last_words()} (log: {service.process.log})"


def recorded_ports(directory: Path) -> dict[str, int]:
    """Ports of the stack that ran last in the directory, by service; empty if none ever did."""
    try:
        record = json.loads((directory / PORTS_FILE).read_text(encoding="utf-8"))
        return {name: int(record[name]) for name in FLAGS}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def is_recorded_secure(directory: Path) -> bool:
    """Whether the stack that ran last in the directory was a secured one."""
    try:
        return json.loads((directory / PORTS_FILE).read_text(encoding="utf-8")).get("secure") is True
    except (OSError, ValueError, AttributeError):
        return False


def recorded_stack(directory: Path) -> Stack:
    """Describe the stack that runs, or ran last, in the directory."""
    recorded = recorded_ports(directory)
    secure = is_recorded_secure(directory)
    return Stack(directory, recorded.get("kafka", 0), recorded.get("registry", 0), secure=secure)


def up(
    directory: Path, kafka_port: int, registry_port: int, progress: Progress | None = None, *, secure: bool = False
) -> tuple[Stack, bool]:
    """Start the stack of the directory unless it runs; tell whether anything had to be started."""
    stack = Stack(directory, kafka_port, registry_port, progress, secure=secure)
    started = stack.start()
    return stack, started


def down(directory: Path) -> list[str]:
    """Stop the stack of the directory, keeping its data; return the names of the servers that ran."""
    return recorded_stack(directory).stop()


def status(directory: Path) -> list[ServiceStatus]:
    """Ask the servers of the directory how they are; starts and changes nothing."""
    return recorded_stack(directory).status()


@contextmanager
def running_stack(
    directory: Path,
    kafka_port: int = 0,
    registry_port: int = 0,
    progress: Progress | None = None,
    detour: Detour | None = None,
    *,
    secure: bool = False,
    extension: Extension | None = None,
) -> Generator[Stack]:
    """Run a stack for the length of a block, on free ports unless told; it is stopped however the block ends.

    Raises:
        StreamsError: it cannot start, or one already runs in this directory (it would be stopped under its user).

    """
    if any(one.pid is not None for one in status(directory)):
        raise StreamsError(f"a stack already runs in {directory}: give another directory, or stop it first")
    stack = Stack(directory, kafka_port, registry_port, progress, detour, secure=secure, extension=extension)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def _status(name: str, service: Service) -> ServiceStatus:
    process = service.process.find()
    known = service.port != 0
    if process is None and service.process.has_crashed:
        state, detail = State.CRASHED, f"it ended unasked; its last words: {service.process.last_words()}"
    elif process is None:
        state, detail = State.STOPPED, ""
    elif _serves(service):
        state, detail = State.RUNNING, ""
    else:
        state, detail = State.UNHEALTHY, "its process lives, but does not answer"
    return ServiceStatus(
        name=name,
        state=state,
        pid=process.pid if process else None,
        port=service.port if known else None,
        address=service.address if known else None,
        log=service.process.log,
        detail=detail,
    )


@contextmanager
def _locked(directory: Path) -> Generator[None]:
    """Let only one command at a time change the stack of a directory; others wait."""
    try:
        (directory / "run").mkdir(parents=True, exist_ok=True)
        lock = (directory / "run" / "lock").open("w")
    except OSError as error:
        raise StreamsError(f"cannot write to {directory}: {error.strerror}; give another --dir") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
