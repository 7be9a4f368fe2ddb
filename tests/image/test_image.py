"""The Dockerfile's steps, executed: the image is built and run, on layers of overlay mounts (`layers.py`).

Some five minutes; `test_dockerfile.py` has what is seen without it.
"""

import json
import os
import shutil
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from streams.local import ports
from streams.local.stack import Stack
from tests.image.dockerfile import parsed
from tests.image.layers import Builder, Layers, container, may_mount
from tests.integration.kafka_helpers import fresh_topics
from tests.integration.workers import wait_until

ROOT: Final = Path(__file__).parents[2]
STAGES: Final = parsed((ROOT / "Dockerfile").read_text(encoding="utf-8"))
USER: Final = int(STAGES[-1].last("USER").rest.partition(":")[0])
DATA: Final = STAGES[-1].last("VOLUME").rest
HEALTHCHECK: Final = STAGES[-1].last("HEALTHCHECK").rest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2_400)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layers]:
    if os.geteuid() or shutil.which("cargo") is None:
        pytest.skip("left out: needs root and cargo, of which the steps of the Dockerfile are run")
    directory = tmp_path_factory.mktemp("image")
    directory.parent.chmod(0o755)  # the image's user goes through it
    directory.chmod(0o755)
    if not may_mount(directory):
        pytest.skip("left out: this machine permits no overlay mounts")
    yield Builder(directory, ROOT).build(STAGES)
    shutil.rmtree(directory, ignore_errors=True)


def healthcheck() -> list[str]:
    """The command of the image's HEALTHCHECK."""
    found = json.loads(HEALTHCHECK.partition("CMD ")[2])
    assert isinstance(found, list)
    return found


def asked(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - http, of this test
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_the_steps_make_an_environment_without_pip_that_says_what_it_is_made_of(image: Layers, tmp_path: Path) -> None:
    looks = """
import json, pathlib, shutil, sys
from streams.avro.native import choose
import deltalake, psycopg, uvloop
sbom = json.load(open("/app/sbom.cdx.json"))
written = []
for place in ("/app", "/opt/streams", "/usr/local", "/etc"):
    try:
        (pathlib.Path(place) / "probe").touch()
        written.append(place)
    except OSError:
        pass
pathlib.Path("/data/probe").touch()
print(json.dumps({
    "native": choose("on").native is not None, "pip": shutil.which("pip", path="/opt/streams/bin"),
    "python": sys.executable, "written": written,
    "components": {one["name"]: one.get("version") for one in sbom["components"]},
}))
"""
    with container(image, tmp_path / "c", ["python", "-c", looks], user=USER, data=DATA, environment={}) as one:
        status = one.process.wait(timeout=120)
        said = one.log.read_text()
    assert 0 == status, said
    seen = json.loads(said)
    assert (True, None, "/opt/streams/bin/python", []) == (
        seen["native"], seen["pip"], seen["python"], seen["written"]
    )  # fmt: skip
    lock = (ROOT / "requirements/runtime.lock").read_text(encoding="utf-8")
    for name in ("confluent-kafka", "psycopg", "rocksdict"):
        assert f"\n{name}=={seen['components'][name]} " in lock
    assert {"logistics-streams", "logistics-streams-native"} <= seen["components"].keys()
    assert {"pip", "maturin", "setuptools"}.isdisjoint(seen["components"])


def test_a_worker_runs_unprivileged_on_a_read_only_root_and_its_health_check_tells_when_it_hangs(
    image: Layers, stack: Stack, tmp_path: Path
) -> None:
    fresh_topics(stack)
    port = ports.free_port()
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers, "SCHEMA_REGISTRY_URL": stack.registry_url,
        "STREAMS_LOG_FORMAT": "json",
    }  # fmt: skip
    command = ["streams", "worker", "--web-port", str(port)]
    with container(image, tmp_path / "c", command, user=USER, data=DATA, environment=environment) as worker:
        wait_until(lambda: asked(f"http://127.0.0.1:{port}/readyz") == 200 or None, "the worker's readiness")
        alive = worker.execute(healthcheck())
        assert 0 == alive.returncode, alive.stderr
        worker.signal(signal.SIGSTOP)
        hung = worker.execute(healthcheck())
        worker.signal(signal.SIGCONT)
        assert 1 == hung.returncode
        assert "timed out" in hung.stderr
        worker.signal(signal.SIGTERM)
        assert 0 == worker.process.wait(timeout=30), worker.log.read_text()[-4_000:]


def test_probes_reach_a_monitor_that_listens_on_every_address_and_the_review_page_wants_a_token(
    image: Layers, stack: Stack, tmp_path: Path
) -> None:
    port = ports.free_port()
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": stack.bootstrap_servers, "SCHEMA_REGISTRY_URL": stack.registry_url,
        "STREAMS_WEB_HOST": "0.0.0.0",  # noqa: S104 - as in a pod
    }  # fmt: skip
    command = ["streams", "monitor", "--web-port", str(port)]
    with container(image, tmp_path / "c", command, user=USER, data=DATA, environment=environment) as monitor:
        wait_until(lambda: asked(f"http://127.0.0.1:{port}/healthz") == 200 or None, "the monitor")
        alive = monitor.execute(healthcheck())
        assert 0 == alive.returncode, alive.stderr
        assert 403 == asked(f"http://127.0.0.1:{port}/dead-letters/")
