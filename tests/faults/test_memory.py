"""Row 32: many long keys, many schema ids, many devices in quarantine: memory stays under the setting."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from streams.kafka.partitioner import partition_of
from tests.faults.harness import READY_S_MAX, Scene, rss_mb
from tests.faults.test_data import Peak, Sender, now_ms
from tests.integration.test_rejects import Encoder, frame
from tests.integration.workers import FROM_NOTHING, LIMITS, PARTITIONS

pytestmark = [pytest.mark.kafka]

MakeScene = Callable[..., Scene]
MEMORY_MB = 512
KEY_BYTES = 1_000
FIRST_UNKNOWN_ID = 1_000_000
ENVIRONMENT = {"STREAMS_MEMORY_MB_MAX": str(MEMORY_MB), "STREAMS_QUARANTINE_REJECTS": "1"}


@dataclass(frozen=True)
class Crowd:
    keys: int
    schema_ids: int
    quarantined: int

    @property
    def records(self) -> int:
        return self.keys + self.schema_ids + 3 * self.quarantined

    def send(self, scene: Scene, encoder: Encoder) -> None:
        sender = Sender(scene, **{"linger.ms": 20, "batch.size": 1_000_000})
        for number in range(self.keys):
            key = f"{number:0>{KEY_BYTES}}"
            sender.send(key, encoder.framed(device_id=key, event_time=now_ms()))
        for number in range(self.schema_ids):
            sender.send(f"schema-{number}", frame(FIRST_UNKNOWN_ID + number) + b"something")
        for _ in range(3):  # two rejects put a device into quarantine, the third is kept out
            for number in range(self.quarantined):
                sender.send(f"sick-{number}", b"junk")
        sender.flush()
        assert sender.refused == []


@contextmanager
def watched(scene: Scene, what: str, most: list[float]) -> Iterator[None]:
    peak = Peak(scene.worker.pid)
    before, began = rss_mb(scene.worker.pid), time.monotonic()
    with peak:
        yield
    most.append(peak.mb)
    scene.note(f"{what}: {before:.0f} -> at most {peak.mb:.0f} MB in {time.monotonic() - began:.0f} s")


def processed(scene: Scene, crowd: Crowd, drained_s_max: float = 600.0) -> list[float]:
    """Resident memory at the most: while the crowd is processed, and while a worker restores it."""
    scene.worker.program = FROM_NOTHING
    scene.start().wait_ready(READY_S_MAX)
    most: list[float] = []
    scene.struck()
    with watched(scene, "processing", most):
        crowd.send(scene, Encoder(scene.stack))
        scene.recovers(drained_s_max)
    assert scene.worker.terminate() == 0, scene.worker.printed()[-3000:]
    scene.start()
    with watched(scene, "restoring", most):
        scene.worker.wait_ready(drained_s_max)
    return most


@pytest.mark.fault(row=32, what="keys of 1,000 bytes, schema ids, devices in quarantine")
@pytest.mark.parametrize(
    "crowd",
    [
        pytest.param(Crowd(keys=2_000, schema_ids=60, quarantined=400), id="2,000, 60, 400"),
        pytest.param(
            Crowd(keys=10_000, schema_ids=300, quarantined=2_000), id="10,000, 300, 2,000", marks=pytest.mark.slow
        ),
    ],
)
def test_a_crowd_of_long_keys_is_processed_and_restored_within_the_memory_setting(
    make_scene: MakeScene, crowd: Crowd
) -> None:
    scene = make_scene("a", environment=ENVIRONMENT, limits=replace(LIMITS, quarantine_rejects=1))
    most = processed(scene, crowd)
    report = scene.exactly_once()
    assert crowd.schema_ids + 3 * crowd.quarantined == report.rejected
    assert crowd.keys == report.clean
    assert max(most) < MEMORY_MB


@pytest.mark.slow
@pytest.mark.timeout(7_200)
@pytest.mark.fault(row=32, what="1,000,000 keys of 1,000 bytes, 10,000 schema ids, 20,000 devices in quarantine")
def test_a_million_long_keys_stay_within_the_memory_setting(make_scene: MakeScene) -> None:
    """The oracle has judged the small crowd; here it is the memory that is looked at."""
    scene = make_scene("a", environment=ENVIRONMENT)
    crowd = Crowd(keys=1_000_000, schema_ids=10_000, quarantined=20_000)
    most = processed(scene, crowd, drained_s_max=3_000.0)
    ends = scene.probe.log_ends("gps.positions.v1")
    assert ends is not None
    assert crowd.records == sum(ends.values())
    assert {partition_of(b"sick-%d" % number, PARTITIONS) for number in range(20)} == set(ends)
    assert max(most) < MEMORY_MB
