"""`streams bridge mqtt` between a real MQTT broker and a real Kafka: what the broker has is in Kafka, whatever dies."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from logistics.flows.gps import GPS
from streams.local.stack import Stack
from tests.faults.proxy import Faults, Proxy
from tests.integration.bridges import Mosquitto, Publisher, RunningBridge, position, publish
from tests.integration.kafka_helpers import committed_records, decoded, fresh_topics, run
from tests.integration.workers import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.mosquitto]

PAGE: Final = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text(encoding="utf-8")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    (tmp_path / "mqtt").mkdir()
    with Mosquitto(tmp_path / "mqtt") as found:
        yield found


@pytest.fixture
def topics(stack: Stack) -> Stack:
    fresh_topics(stack, flows=[GPS.name])
    return stack


def ids_in_kafka(stack: Stack) -> list[str]:
    return [event["event_id"] for event in decoded(committed_records(stack, GPS.source), GPS.subject)]


def assert_nothing_is_lost(stack: Stack, publisher: Publisher) -> None:
    wait_until(lambda: publisher.published <= set(ids_in_kafka(stack)), "all are there")
    assert publisher.published == set(ids_in_kafka(stack))


def kills(stack: Stack, bridge: RunningBridge, broker: Mosquitto, count: int) -> None:
    with bridge, Publisher(broker) as publisher:
        for number in range(count):
            target = len(publisher.published) + 200
            wait_until(lambda target=target: len(publisher.published) >= target, "more is published")  # type: ignore[misc]
            time.sleep(0.05 * (number % 5))
            assert bridge.stop(signal.SIGKILL) == -9
            bridge.start()
        publisher.__exit__(None, None, None)
        assert_nothing_is_lost(stack, publisher)
        assert bridge.stop() == 0


def test_whatever_the_bridge_is_killed_in_nothing_is_lost(topics: Stack, broker: Mosquitto, tmp_path: Path) -> None:
    kills(topics, RunningBridge(topics, tmp_path, broker, options=["--topic", "fleet/#"]), broker, 2)


@pytest.mark.slow
def test_whatever_the_bridge_is_killed_in_nothing_is_lost_twenty_times(
    topics: Stack, broker: Mosquitto, tmp_path: Path
) -> None:
    kills(topics, RunningBridge(topics, tmp_path, broker, options=["--topic", "fleet/#"]), broker, 20)


def test_what_is_no_event_is_a_dead_letter_and_holds_up_nothing(
    topics: Stack, broker: Mosquitto, tmp_path: Path
) -> None:
    with RunningBridge(topics, tmp_path, broker, options=["--topic", "fleet/#"]) as bridge:
        deep = "[" * 10_000 + "]" * 10_000
        for payload in ("", "no JSON", deep, json.dumps({"device_id": "van-1"}), b"\xff\xfe", "x" * 1_100_000):
            publish(broker, "fleet/van-1", payload)
        publish(broker, "fleet/van-1", json.dumps([position(1), position(2)]))
        wait_until(lambda: set(ids_in_kafka(topics)) == {"mqtt-1", "mqtt-2"}, "the events are there")
        listed = json.loads(run(topics, "dlq", "list", "--format", "json").stdout)
        assert sorted(one["reason"] for one in listed["entries"]) == ["invalid", *["malformed"] * 4, "too_large"]
        _, metrics = bridge.ask("GET", "/metrics")
        assert b'streams_bridge_messages_total{outcome="acknowledged"} 7.0' in metrics
        assert b"streams_bridge_connected 1.0" in metrics


def test_without_kafka_messages_wait_at_the_broker(
    topics: Stack, broker: Mosquitto, proxy: Proxy, tmp_path: Path
) -> None:
    options = ["--topic", "fleet/#"]
    with (
        RunningBridge(topics, tmp_path, broker, options=options, bootstrap_servers=proxy.address) as bridge,
        Publisher(broker, per_second=100) as publisher,
    ):
        wait_until(lambda: len(publisher.published) >= 50, "messages come")
        proxy.faults = Faults(silent=True)
        proxy.reset_all()
        try:
            wait_until(lambda: "Kafka does not acknowledge" in bridge.why_not(), "it says so")
        finally:
            proxy.faults = Faults()
        target = len(publisher.published) + 100
        wait_until(lambda: len(publisher.published) >= target, "more is published")
        publisher.__exit__(None, None, None)
        assert_nothing_is_lost(topics, publisher)


def test_a_broker_that_is_restarted_is_connected_to_again(topics: Stack, broker: Mosquitto, tmp_path: Path) -> None:
    with RunningBridge(topics, tmp_path, broker, options=["--topic", "fleet/#"]) as bridge:
        broker.stop()
        wait_until(lambda: "is lost" in bridge.why_not() or "does not answer" in bridge.why_not(), "it says so")
        broker.start()
        wait_until(bridge.is_ready, "it is connected again")
        publish(broker, "fleet/van-1", json.dumps(position(1)))
        wait_until(lambda: ids_in_kafka(topics) == ["mqtt-1"], "the event is there")


def test_a_wrong_password_is_said_and_a_right_one_in_its_file_is_taken_without_a_restart(
    topics: Stack, tmp_path: Path
) -> None:
    (tmp_path / "mqtt").mkdir()
    secret = tmp_path / "password"
    secret.write_text("wrong")
    with Mosquitto(tmp_path / "mqtt", users={"bridge": "right"}) as broker:
        bridge = RunningBridge(
            topics, tmp_path, broker, options=["--topic", "fleet/#"],
            STREAMS_MQTT_USERNAME="bridge", STREAMS_MQTT_PASSWORD_FILE=str(secret),
        )  # fmt: skip
        bridge.begin()
        try:
            wait_until(lambda: "Not authorized" in bridge.why_not(), "it says why")
            secret.write_text("right")
            wait_until(bridge.is_ready, "it is let in")
        finally:
            assert bridge.stop() == 0
        assert "wrong" not in bridge.log.read_text(encoding="utf-8")


def test_bridges_that_share_get_each_message_once(topics: Stack, broker: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    options = ["--topic", "fleet/#", "--share", "all", "--protocol", "5"]
    with (
        RunningBridge(topics, tmp_path, broker, options=options),
        RunningBridge(topics, tmp_path / "b", broker, options=[*options, "--client-id", "bridge-b"]),
        Publisher(broker) as publisher,
    ):
        wait_until(lambda: len(publisher.published) >= 300, "messages come")
        publisher.__exit__(None, None, None)
        assert_nothing_is_lost(topics, publisher)
        found = ids_in_kafka(topics)
        assert len(found) == len(set(found))


def test_the_lines_of_the_page_do_what_it_says(topics: Stack, broker: Mosquitto, tmp_path: Path) -> None:
    lines = re.findall(r"^\$ (mosquitto_pub .*)$", PAGE, re.MULTILINE)
    assert len(lines) == 2
    started = re.findall(r"^\$ streams bridge mqtt mqtt://127\.0\.0\.1:1883 (.*)$", PAGE, re.MULTILINE)
    assert len(started) == 2
    for options, line in zip(started, lines, strict=True):
        words = options.replace("'", "").replace(f"--source {GPS.source}", "").split()
        with RunningBridge(topics, tmp_path, broker, options=words):
            subprocess.run(["bash", "-c", line.replace("1883", str(broker.port))], check=True, timeout=30)
            wait_until(lambda: len(ids_in_kafka(topics)) == lines.index(line) + 1, "the event is there")  # noqa: B023
    devices = {event["device_id"] for event in decoded(committed_records(topics, GPS.source), GPS.subject)}
    assert devices == {"van-1", "owntracks/ann/phone"}
