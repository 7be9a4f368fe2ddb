"""The gateway on a real Kafka and registry: what it accepts is there, whatever kills it; its page does what it says."""

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from logistics.flows.gps import GPS
from streams.gateway.credentials import TOKEN_PREFIX, CredentialFile, Kind
from streams.kafka.partitioner import partition_of
from streams.local.stack import Stack
from tests.faults.proxy import Faults, Proxy
from tests.gateway.running import position
from tests.integration.gateways import RunningGateway, Senders, assert_nothing_is_lost
from tests.integration.kafka_helpers import alter_topic, committed_records, decoded, fresh_topics, run
from tests.integration.workers import Worker, wait_until

pytestmark = pytest.mark.kafka

PAGE: Final = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")


@pytest.fixture
def gateway(stack: Stack, tmp_path: Path) -> Iterator[RunningGateway]:
    fresh_topics(stack, flows=[GPS.name])
    with RunningGateway(stack, tmp_path) as found:
        yield found


def curl(gateway: RunningGateway, line: str) -> str:
    line = line.replace("http://127.0.0.1:8088", f"http://127.0.0.1:{gateway.port}")
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lines_of_the_page_do_what_it_says_and_a_phone_becomes_the_row_of_a_vehicle(
    stack: Stack, gateway: RunningGateway, tmp_path: Path
) -> None:
    shown = re.findall(r"^\$ ((?:curl|printf).*)\n([^$`].*\n)?", PAGE, re.MULTILINE)
    assert len(shown) == 3
    for line, expected in shown:
        printed = curl(gateway, line)
        assert not expected or printed.strip() == expected.strip()
    assert json.loads(curl(gateway, shown[1][0]))["rejected"] == 1
    records = committed_records(stack, GPS.source)
    assert all(partition_of(record.key, 3) == record.partition for record in records)
    ids = [event["event_id"] for event in decoded(records, GPS.subject)]
    assert len(ids) == 4
    assert len(set(ids)) == 3, "the second line was run twice, with the same key"
    listed = json.loads(run(stack, "dlq", "list", "--format", "json").stdout)
    assert [letter["reason"] for letter in listed["entries"]] == ["invalid"], "the same bytes are one letter"
    worker = Worker(stack, tmp_path).start()
    try:
        (row,) = wait_until(
            lambda: [
                row
                for row in decoded(committed_records(stack, "vehicles.state.v1"), "vehicles.state.v1-value")
                if row["device_id"] == "owntracks/ann/phone"
            ],
            "the phone's row",
        )
    finally:
        worker.terminate()
    assert (row["latitude"], row["longitude"]) == (52.5163, 13.3777)


def test_a_dead_letter_of_the_gateway_is_shown_and_replayed(stack: Stack, gateway: RunningGateway) -> None:
    ahead_ms = int(time.time() * 1000) + 3_600_000
    status, body = gateway.send([position(1, event_time=ahead_ms), {"no": "position"}])
    assert status == 422
    letters = [one["dead_letter"] for one in json.loads(body)["results"]]
    listed = json.loads(run(stack, "dlq", "list", "--format", "json").stdout)
    assert sorted(one["id"] for one in listed["entries"]) == sorted(letters)
    shown = run(stack, "dlq", "show", letters[0])
    assert (shown.returncode, "future_timestamp" in shown.stdout, "van-1" in shown.stdout) == (0, True, True)
    shown = run(stack, "dlq", "show", letters[1])
    assert (shown.returncode, "device_id is missing" in shown.stdout) == (0, True)
    replayed = run(stack, "dlq", "replay", letters[0], "--wait", "0", "--why", "its clock is right now")
    assert replayed.returncode == 0, replayed.stderr
    assert [event["event_time"] for event in decoded(committed_records(stack, GPS.source), GPS.subject)] == [ahead_ms]


def test_what_a_topic_refuses_costs_itself_alone(stack: Stack, gateway: RunningGateway) -> None:
    seeded = random.Random(8123)

    def large(number: int) -> dict[str, Any]:
        """A position that is large, also once it is compressed."""
        return position(number, device_id="".join(chr(seeded.randrange(0x21, 0x7F)) for _ in range(1_000)))

    assert gateway.send([large(0)])[0] == 202
    alter_topic(stack, GPS.source, max_message_bytes="700")
    try:
        wait_until(lambda: gateway.send([large(1)])[0] == 422, "the topic refuses it", timeout_s=20)
        status, body = gateway.send([*[position(1_000 + i) for i in range(50)], large(2)])
        found = json.loads(body)
        assert (status, found["accepted"], found["rejected"]) == (422, 50, 1)
        assert found["results"][-1]["reason"] == "refused_by_output"
    finally:
        alter_topic(stack, GPS.source, max_message_bytes="1048588")


def test_a_token_is_needed_once_there_is_one(stack: Stack, gateway: RunningGateway, tmp_path: Path) -> None:
    assert gateway.send([position(0)])[0] == 202
    token = CredentialFile(tmp_path).new(Kind.TOKEN, "fleet", [GPS.source]).shown
    wait_until(lambda: gateway.send([position(0)])[0] == 401, "the token is needed", timeout_s=10)
    path, body = f"/v1/events/{GPS.source}", json.dumps(position(1)).encode()
    status, _ = gateway.ask("POST", path, body, Content_Type="application/json", Authorization=f"Bearer {token}")
    assert status == 202
    secret = token.removeprefix(TOKEN_PREFIX).partition("_")[2]  # which may have more of them
    assert len(secret) > 20
    assert secret not in gateway.log.read_text(encoding="utf-8")


def kills(stack: Stack, gateway: RunningGateway, count: int) -> None:
    with Senders(gateway) as senders:
        for number in range(count):
            target = len(senders.acknowledged) + 300
            wait_until(lambda target=target: len(senders.acknowledged) >= target, "more is accepted")  # type: ignore[misc]
            time.sleep(0.05 * (number % 5))
            assert gateway.stop(signal.SIGKILL) == -9
            gateway.start()
        target = len(senders.acknowledged) + 300
        wait_until(lambda: len(senders.acknowledged) >= target, "more is accepted")
    assert senders.retries
    assert_nothing_is_lost(stack, senders)


def test_what_was_accepted_is_there_whenever_the_gateway_is_killed(stack: Stack, gateway: RunningGateway) -> None:
    kills(stack, gateway, 2)


@pytest.mark.slow
def test_what_was_accepted_is_there_after_twenty_kills(stack: Stack, gateway: RunningGateway) -> None:
    kills(stack, gateway, 20)


def test_several_processes_share_a_port_and_one_that_is_killed_is_started_again(stack: Stack, tmp_path: Path) -> None:
    fresh_topics(stack, flows=[GPS.name])
    with RunningGateway(stack, tmp_path, options=["--processes", "2"]) as gateway:
        wait_until(lambda: len(gateway.members()) == 2, "both are there")
        with Senders(gateway) as senders:
            wait_until(lambda: len(senders.acknowledged) >= 100, "events are accepted")
            first = gateway.members()[0]
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: first not in gateway.members() and len(gateway.members()) == 2, "it is started again")
            wait_until(gateway.is_ready, "all are ready")
        _, metrics = gateway.ask("GET", "/metrics")
        accepted = re.findall(
            rb'streams_gateway_events_total\{[^}]*outcome="accepted"[^}]*source="gps[^}]*\} (\S+)', metrics
        )
        assert len(accepted) == 2, "one of each process"
        assert gateway.stop() == 0
    assert_nothing_is_lost(stack, senders)


def test_a_request_under_way_is_answered_before_the_end(stack: Stack, gateway: RunningGateway) -> None:
    with Senders(gateway) as senders:
        wait_until(lambda: len(senders.acknowledged) >= 300, "events are accepted")
        assert gateway.stop() == 0
        gateway.start()
    assert_nothing_is_lost(stack, senders)


def test_without_kafka_senders_are_told_so_and_are_served_when_it_is_back(
    stack: Stack, proxy: Proxy, tmp_path: Path
) -> None:
    fresh_topics(stack, flows=[GPS.name])
    with RunningGateway(stack, tmp_path, bootstrap_servers=proxy.address) as gateway, Senders(gateway) as senders:
        wait_until(lambda: len(senders.acknowledged) >= 100, "events are accepted")
        proxy.faults = Faults(silent=True)
        proxy.reset_all()
        try:
            wait_until(lambda: senders.statuses[503] >= 3, "senders are told")
            wait_until(lambda: not gateway.is_ready(), "it says that it is not ready")
        finally:
            proxy.faults = Faults()
        target = len(senders.acknowledged) + 300
        wait_until(lambda: len(senders.acknowledged) >= target, "events are accepted again")
        wait_until(gateway.is_ready, "it is ready again")
    assert_nothing_is_lost(stack, senders)
