"""What a dead-letter command touches: its own set, what was there when it was asked, no topic of a header's choice."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pytest
from confluent_kafka import Producer

from logistics.flows.gps import GPS
from logistics.flows.orders import ORDERS
from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.cli.dlq.results import details_row
from streams.deadletters.letter.audit import Actor
from streams.deadletters.letter.envelope import envelope_headers
from streams.deadletters.letter.filter import Filter
from streams.deadletters.letter.inspect import MASK
from streams.deadletters.letter.pin import Pin
from streams.deadletters.review.choice import survey
from streams.deadletters.review.discard import discard
from streams.deadletters.review.inbox import Inbox
from streams.deadletters.review.look import details, listing
from streams.deadletters.review.replay import ReplayOptions, replay
from streams.errors import UsageError
from streams.flow.declaration import Pipeline
from streams.flow.discover import select_pipelines
from streams.kafka.admin import settled
from streams.kafka.topics import apply_topics
from streams.local.stack import Stack
from streams.settings import Settings
from tests.integration.kafka_helpers import delete_topics, fresh_topics, log_end, recreate_topic, run, settings_of
from tests.integration.test_rejects import Encoder

pytestmark = pytest.mark.kafka

PREFIX = "staging."
STAGING = GPS.with_prefix(PREFIX)
ME = Actor("stella", "the cause is gone", "run-1")
ELSEWHERE = "connect.errors"


@dataclass
class Sets:
    """Two sets on one broker, production without a prefix, and a way to put letters into either."""

    stack: Stack
    encoder: Encoder
    producer: Producer
    _offset: int = field(default=0)

    def put(
        self, flow: Pipeline, device: str, *, source: str | None = None, topic: str | None = None, **more: Any
    ) -> None:
        """A dead letter as the worker of `flow` writes it; `source`: what its header says instead."""
        self._offset += 1
        value = self.encoder.framed(device_id=device, latitude=91.2345)
        letter = DeadLetter(
            Reject(0, Reason.INVALID, more.get("message", "latitude is outside [-90, 90]"), None),
            0, self._offset, 1, device.encode(), value, more.get("headers"),
        )  # fmt: skip
        headers: Any = envelope_headers(letter, source=source or flow.source, group=flow.group, now_ms=now_ms())
        self.producer.produce(topic or flow.dlq, value, device.encode(), headers=headers)
        assert 0 == self.producer.flush(30)

    def run(self, *arguments: object, prefix: str = "") -> subprocess.CompletedProcess[str]:
        return run(self.stack, "dlq", *arguments, STREAMS_TOPIC_PREFIX=prefix)

    @contextmanager
    def inbox(self, *topics: str, prefix: str = "") -> Iterator[Inbox]:
        inbox = Inbox(self.settings(prefix), topics)
        try:
            inbox.refresh()
            yield inbox
        finally:
            inbox.close()

    def devices(self, *topics: str, prefix: str = "") -> set[str]:
        """Devices of the letters that are open in a set."""
        with self.inbox(*topics, prefix=prefix) as inbox:
            keys = list(chain.from_iterable(found.rows.keys() for found in inbox.find(Filter(is_open=True))))
        return {(key or b"").decode() for key in keys}

    def settings(self, prefix: str = "") -> Settings:
        return settings_of(self.stack).model_copy(update={"streams_topic_prefix": prefix})


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def sets(stack: Stack) -> Sets:
    staging = select_pipelines(None, prefix=PREFIX)
    client = fresh_topics(stack)
    delete_topics(client, {topic.name for flow in staging for topic in flow.topics()} | {ELSEWHERE})
    apply_topics(client, staging, partitions=3)
    return Sets(
        stack,
        Encoder(stack),
        Producer(
            {"bootstrap.servers": stack.bootstrap_servers, "partitioner": "murmur2_random", "enable.idempotence": True}
        ),
    )


def test_the_commands_of_a_set_see_and_touch_their_own_letters_only(sets: Sets) -> None:
    for number in range(2):
        sets.put(GPS, f"production-{number}")
        sets.put(STAGING, f"staging-{number}")
    before = log_end(sets.stack, GPS.source)

    listed = sets.run("list", "--format", "json", prefix=PREFIX)
    assert {"staging-0", "staging-1"} == {entry["device"] for entry in json.loads(listed.stdout)["entries"]}
    for name in (GPS.source, GPS.dlq, STAGING.source, STAGING.dlq):
        assert {"staging-0", "staging-1"} == sets.devices(name, prefix=PREFIX), name
    replayed = sets.run("replay", "--device", "staging-0", "--wait", "0", "--format", "json", prefix=PREFIX)
    assert {STAGING.source: 1} == json.loads(replayed.stdout)["into"]
    done = sets.run("discard", "--all", "--why", "a test set", prefix=PREFIX)
    assert (0, f"1 dead letter discarded\n  1 of {STAGING.dlq}\n") == (done.returncode, done.stdout)

    assert set() == sets.devices(prefix=PREFIX)
    assert {"production-0", "production-1"} == sets.devices()
    assert before == log_end(sets.stack, GPS.source)
    assert 1 <= log_end(sets.stack, STAGING.source)
    assert 0 == log_end(sets.stack, GPS.audit), "nothing is said of production's letters"


def test_personal_fields_are_masked_in_a_set_with_a_prefix_and_where_no_schema_is_known(sets: Sets) -> None:
    recreate_topic(sets.stack, ELSEWHERE, 1)
    sets.put(STAGING, "car", headers=[("driver", b"secret")])
    sets.put(STAGING, "secret-car", source="no.such.topic", topic=ELSEWHERE, headers=[("driver", b"secret")])
    sets.producer.produce(ELSEWHERE, b"secret value", b"secret-key")
    sets.producer.flush(30)
    with sets.inbox(STAGING.dlq, ELSEWHERE, prefix=PREFIX) as inbox:
        shown = [
            details(inbox, inbox.the_one(letter_id.decode()), reveal=False)
            for found in inbox.find(Filter())
            for letter_id in found.rows.ids.tolist()
        ]
        groups = listing(inbox, Filter(), group_by="device", limit=0).groups
    assert 3 == len(shown)
    assert all(each.view.is_masked for each in shown)
    assert {("car", 1, 1), (MASK, 2, 2)} == set(groups)
    listed = sets.run("list", "--topic", STAGING.dlq, "--topic", ELSEWHERE, prefix=PREFIX)
    texts = [listed.stdout, *(json.dumps(details_row(each), default=str) for each in shown)]
    for text in texts:
        assert not [found for found in ("secret", "91.2345", b"secret".hex()) if found in text], text
    assert "car" in listed.stdout


def test_a_forged_header_redirects_no_replay_and_holds_up_no_other_letter(sets: Sets) -> None:
    forged = [ORDERS.source, GPS.clean, STAGING.source, "no.such.topic"]
    sets.put(GPS, "good")
    for number, source in enumerate(forged):
        sets.put(GPS, f"forged-{number}", source=source)
        sets.producer.produce(GPS.dlq, b"x", b"spring", headers=[("kafka_dlt-original-topic", source.encode())])
    sets.producer.flush(30)
    before = [log_end(sets.stack, topic) for topic in forged[:3]]

    with sets.inbox() as inbox:
        asked = replay(inbox, ReplayOptions(Filter(), ME, dry_run=True))
    done = sets.run("replay", "--all", "--wait", "0")

    assert (9, 8, {GPS.source: 1}) == (asked.selected, asked.refused, dict(asked.into))
    assert (100, True) == (done.returncode, f"  1 into {GPS.source}\n" in done.stdout), done.stderr
    for source in forged:
        words = f"its envelope names {source!r}, and what is in {GPS.dlq} goes back to {GPS.source} only"
        assert 2 == done.stderr.count(words)
    assert "8 of 9 dead letters cannot be replayed, they are open as before" in done.stderr
    assert before == [log_end(sets.stack, topic) for topic in forged[:3]]
    with sets.inbox() as inbox:
        gone = discard(inbox, Filter(), ME)
    assert (8, 0) == (gone.discarded, gone.refusals.count)
    assert set() == sets.devices()


def test_in_another_topic_letters_of_no_declared_flow_are_left_and_the_others_are_done(sets: Sets) -> None:
    recreate_topic(sets.stack, ELSEWHERE, 1)
    for device, source in (("mine", GPS.source), ("mine-too", GPS.source), ("theirs", "no.such.topic")):
        sets.put(GPS, device, source=source, topic=ELSEWHERE)

    with sets.inbox(ELSEWHERE) as inbox:
        replayed = replay(inbox, ReplayOptions(Filter(), ME, limit=1))
    discarded = sets.run("discard", "--all", "--why", "x", "--topic", ELSEWHERE, "--format", "json")

    assert (1, 1, {GPS.source: 1}) == (replayed.replayed, replayed.refused, dict(replayed.into))
    found = json.loads(discarded.stdout)
    assert (100, 1, 1, 2) == (discarded.returncode, found["discarded"], found["refused"], found["selected"])
    assert "which is the source of no declared flow" in found["refusals"][0]["why"]
    assert {"theirs"} == sets.devices(ELSEWHERE)


def test_what_came_after_the_question_was_asked_is_not_touched(sets: Sets) -> None:
    for number in range(3):
        sets.put(GPS, f"asked-{number}")
    inbox = Inbox(sets.settings())
    try:
        asked = survey(inbox, Filter())
        assert (3, {GPS.source: 3}) == (asked.replay.letters, dict(asked.replay.by_source))
        assert (3, {GPS.dlq: 3}) == (asked.discard.letters, dict(asked.discard.by_topic))
        for number in range(20):
            sets.put(GPS, f"later-{number}")
        inbox.refresh()
        pinned = Filter().pinned(asked.pin)
        assert 1 == replay(inbox, ReplayOptions(pinned, ME, limit=1)).replayed
        assert 2 == discard(inbox, pinned, ME).discarded
        for pin, words in (
            (Pin({GPS.dlq: (10**6, 0, 0)}), "was created again"),
            (Pin({GPS.dlq: (0, 0, 0, 0)}), "was created again"),
            (Pin({STAGING.dlq: (1, 1, 1)}), "of other topics"),
        ):
            with pytest.raises(UsageError, match=words):
                discard(inbox, Filter(pin=pin), ME)
            with pytest.raises(UsageError, match=words):
                replay(inbox, ReplayOptions(Filter(pin=pin), ME))
    finally:
        inbox.close()
    assert {f"later-{number}" for number in range(20)} == sets.devices()


def test_a_dry_run_gives_a_pin_and_with_it_the_command_does_what_it_said(sets: Sets) -> None:
    sets.put(GPS, "asked")
    asked = json.loads(sets.run("discard", "--reason", "invalid", "--dry-run", "--format", "json").stdout)
    text = sets.run("discard", "--reason", "invalid", "--dry-run").stdout
    replay_asked = json.loads(sets.run("replay", "--all", "--dry-run", "--format", "json").stdout)
    sets.put(GPS, "later")

    assert asked["pin"] == replay_asked["pin"]
    assert f"add --pin {asked['pin']}\n" in text
    done = sets.run("discard", "--reason", "invalid", "--why", "x", "--pin", asked["pin"], "--format", "json")
    assert (1, 1) == (asked["selected"], json.loads(done.stdout)["discarded"])
    assert {"later"} == sets.devices()


def test_discard_takes_a_text_given_as_reason_for_why_as_it_did_and_a_reason_for_a_filter(sets: Sets) -> None:
    sets.put(GPS, "one")
    sentence = sets.run("discard", "--all", "--reason", "a test truck", "--dry-run", "--format", "json")
    word = sets.run("discard", "--all", "--reason", "hunt", "--dry-run", "--format", "json")
    none = sets.run("discard", "--all", "--reason", "malformed", "--dry-run", "--format", "json")
    done = sets.run("discard", "--all", "--reason", "hunt")

    assert [1, 1, 0] == [json.loads(each.stdout)["selected"] for each in (sentence, word, none)]
    assert ["is taken as --why" in each.stderr for each in (sentence, word, none)] == [True, True, False]
    assert (2, True) == (done.returncode, "needs a reason: --why" in done.stderr)
    old = sets.run("discard", "--rejected-for", "invalid", "--reason", "a test truck", "--format", "json")
    assert 1 == json.loads(old.stdout)["discarded"]


@pytest.mark.parametrize("reason", ["not framed", "malfromed"])
@pytest.mark.parametrize("more", [["--dry-run"], ["--why", "x"], ["--why", "x", "--dry-run"]], ids=" ".join)
def test_a_misspelt_reason_beside_another_filter_is_refused(sets: Sets, reason: str, more: list[str]) -> None:
    """It would mean all of the device's letters."""
    sets.put(GPS, "one")
    done = sets.run("discard", "--device", "one", "--reason", reason, *more)

    assert (2, "") == (done.returncode, done.stdout)
    assert f"there is no reason {reason!r}" in done.stderr
    assert {"one"} == sets.devices()


def test_a_text_as_reason_beside_another_filter_is_no_why(sets: Sets) -> None:
    sets.put(GPS, "one")
    done = sets.run("discard", "--device", "one", "--reason", "not framed")

    assert (2, True) == (done.returncode, "needs a reason: --why" in done.stderr)
    assert {"one"} == sets.devices()


def test_reasons_of_others_can_be_asked_for_as_long_as_there_are_such_letters(sets: Sets) -> None:
    headers: Any = [("kafka_dlt-original-topic", GPS.source.encode()), ("kafka_dlt-exception-fqcn", b"a.NoSuchOrder")]
    sets.producer.produce(GPS.dlq, b"x", b"k", headers=headers)
    sets.producer.flush(30)
    refused = sets.run("list", "--reason", "NoSuchOrdr")
    assert (2, True) == (refused.returncode, "also NoSuchOrder" in refused.stderr)
    inbox = Inbox(sets.settings())
    try:
        for act in (lambda f: replay(inbox, ReplayOptions(f, ME)), lambda f: discard(inbox, f, ME)):
            with pytest.raises(UsageError, match="no reason 'bogus'"):
                act(Filter(reasons=frozenset({"bogus"})))
            act(Filter(reasons=frozenset({"NoSuchOrder"})))
    finally:
        inbox.close()


def test_nothing_that_a_record_says_reaches_a_terminal_as_an_escape(sets: Sets) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b\u202e\r\n"
    header = [(f"name{evil}", evil.encode())]
    sets.put(GPS, f"key{evil}", message=f"message{evil}", headers=header)
    spring: Any = [
        ("kafka_dlt-original-topic", f"topic{evil}".encode()),
        ("kafka_dlt-exception-fqcn", f"a.Reason{evil}".encode()),
        ("kafka_dlt-exception-message", evil.encode()),
        ("kafka_dlt-original-consumer-group", evil.encode()),
        (f"kafka_dlt-{evil}", evil.encode()),
    ]
    sets.producer.produce(GPS.dlq, evil.encode(), evil.encode(), headers=spring)
    sets.producer.flush(30)
    listed = json.loads(sets.run("list", "--format", "json").stdout)
    ids = [entry["id"] for entry in listed["entries"]]
    assert 2 == len(ids)
    ran = [
        sets.run("list", "--group-by", "device"),
        sets.run("list", "--reason", evil),
        *(sets.run("show", each) for each in ids),
        sets.run("show", ids[0], "--reveal", "--format", "json"),
        sets.run("replay", "--all", "--dry-run"),
        sets.run("discard", "--all", "--why", evil),
        sets.run("show", ids[0]),
    ]
    for done in ran:
        for text in (done.stdout, done.stderr):
            assert all(line.isprintable() for line in text.split("\n")), (done.args, text)
    assert "\\x1b]0;owned\\x07" in "".join(done.stdout for done in ran)


def test_a_source_topic_that_is_missing_is_said_before_anything_is_sent(sets: Sets) -> None:
    sets.put(GPS, "one")
    client = fresh_topics(sets.stack)
    sets.put(GPS, "two")
    for name, future in client.delete_topics([GPS.source]).items():
        settled(f"deleting {name}", future)
    done = sets.run("replay", "--all")
    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert f"no source topic {GPS.source} to replay into: nothing was sent; run `streams topics apply`" in done.stderr
