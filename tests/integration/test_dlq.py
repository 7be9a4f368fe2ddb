"""`streams dlq` over a real topic of dead letters that a real worker wrote, and writes again."""

import json
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer

from loadtest.oracle.read import TopicReader
from logistics.flows.gps import GPS
from streams.deadletters.letter.audit import Actor
from streams.deadletters.letter.filter import Filter
from streams.deadletters.letter.inspect import MASK
from streams.deadletters.review.discard import discard
from streams.deadletters.review.inbox import Inbox
from streams.deadletters.review.look import Entry, details, entries_of, reveal
from streams.deadletters.review.replay import ReplayOptions, ReplayResult, replay
from streams.deadletters.review.session import ReplaySession
from streams.errors import FencedError, StreamsError, UsageError
from streams.local.stack import Stack
from streams.schemas.client import Registry
from streams.sinks.base import Checkpoint, Outgoing, WriteInterrupted
from streams.sinks.transactional import TransactionalSink
from tests.integration.kafka_helpers import delete_topics, fresh_topics, headers_of, run, settings_of
from tests.integration.test_rejects import Encoder, Sent, frame, produce
from tests.integration.workers import Worker, fresh_world, position_schema, wait_until, workers

pytestmark = pytest.mark.kafka

ME = Actor("stella", "the cause is gone", "run-1")
WAIT_S = 30.0


@dataclass
class Scene:
    """A worker at work on fresh topics, and a steward's inbox."""

    stack: Stack
    worker: Worker
    inbox: Inbox
    encoder: Encoder

    def reject(self, value: bytes, device: str, **more: Any) -> Entry:
        """Send a bad record and wait for its dead letter."""
        produce(self.stack, [Sent(device, value, key=device.encode(), **more)])
        return wait_until(lambda: self.open(device), f"a dead letter of {device}")

    def open(self, device: str) -> Entry | None:
        return next(iter(self.letters(device, is_open=True)), None)

    def letters(self, device: str, *, is_open: bool | None = None) -> list[Entry]:
        self.inbox.refresh()
        found = self.inbox.find(Filter(keys=frozenset({device.encode()}), is_open=is_open))
        return [entry for each in found for entry in entries_of(each)]

    def replay(self, device: str, **options: Any) -> ReplayResult:
        wanted = Filter(keys=frozenset({device.encode()}))
        return replay(self.inbox, ReplayOptions(wanted, ME, **{"wait_s": WAIT_S, **options}))

    def source_end(self) -> int:
        reader = TopicReader(self.stack.bootstrap_servers)
        try:
            return sum(1 for _ in reader.records(GPS.source))
        finally:
            reader.close()

    def read(self, topic: str, device: str) -> list[Message]:
        reader = TopicReader(self.stack.bootstrap_servers)
        try:
            return [one for one in reader.records(topic) if one.key() == device.encode()]
        finally:
            reader.close()


@pytest.fixture(scope="module")
def scene(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    fresh_world(stack)
    with workers(stack, tmp_path_factory.mktemp("dlq"), "a") as (worker,):
        worker.start().wait_ready()
        inbox = Inbox(settings_of(stack))
        try:
            yield Scene(stack, worker, inbox, Encoder(stack))
        finally:
            inbox.close()


def invalid(scene: Scene, device: str, **changed: Any) -> bytes:
    return scene.encoder.framed(device_id=device, latitude=91.0, **changed)


def coming_schema(scene: Scene, number: int) -> tuple[int, Callable[[], None]]:
    """An id that the registry will give to the positions' schema once the second value is called."""
    text = json.loads(position_schema(scene.stack, 1)[0])
    registry = Registry(settings_of(scene.stack))

    def variant(count: int) -> str:
        return json.dumps({**text, "doc": f"{number}-{count}-{time.time_ns()}"})

    coming = registry.register(f"tests.coming-{number}-0-value", variant(0)) + 1

    def register() -> None:
        given = [registry.register(f"tests.coming-{number}-{count}-value", variant(count)) for count in range(1, 3)]
        assert coming in given

    return coming, register


def test_a_replayed_letter_goes_through_once_the_cause_is_gone_and_one_that_went_through_meanwhile_is_dropped(
    scene: Scene,
) -> None:
    coming, register = coming_schema(scene, 1)
    lost, copied = scene.encoder.body(device_id="lost"), scene.encoder.body(device_id="copied")
    letter = scene.reject(frame(coming) + lost, "lost", headers=[("trace", b"\xff")]).letter
    scene.reject(frame(coming) + copied, "copied")
    assert ("unknown_schema", 1, coming) == (letter.reason, letter.attempt, letter.schema_id)
    produce(scene.stack, [Sent("again", frame(scene.encoder.schemas[1][1]) + copied, key=b"copied")])
    register()
    assert 0 == scene.worker.terminate()  # it remembers unknown ids for a while
    scene.worker.start().wait_ready()

    went = scene.replay("lost")
    dropped = scene.replay("copied")

    assert (1, {"clean": 1}) == (went.replayed, dict(went.outcomes))
    assert (1, {"duplicate": 1}) == (dropped.replayed, dict(dropped.outcomes))
    (clean,) = scene.read(GPS.clean, "lost")
    assert frame(coming) + lost == clean.value()
    headers = dict(clean.headers() or ())
    assert (b"\xff", letter.id.encode(), b"2") == (headers["trace"], headers["dlq.id"], headers["dlq.attempt"])
    assert not {"dlq.history", "dlq.replayed"} & headers.keys()
    assert 1 == len(scene.read(GPS.clean, "copied"))
    (entry,) = scene.letters("copied")
    assert ("replayed", "duplicate") == (entry.status, entry.outcome)
    assert 0 == scene.replay("lost").selected, "a letter that was replayed is not open"


def test_what_fails_again_is_the_next_attempt_of_the_same_letter_and_there_is_a_limit(scene: Scene) -> None:
    first = scene.reject(invalid(scene, "again"), "again").letter

    assert {"rejected": 1} == dict(scene.replay("again").outcomes)
    second = wait_until(lambda: scene.open("again"), "the second attempt").letter
    assert (first.id, 2, first.first_failed_at) == (second.id, second.attempt, second.first_failed_at)
    assert first.value == second.value
    assert {"rejected": 1} == dict(scene.replay("again").outcomes)
    third = wait_until(lambda: scene.open("again"), "the third attempt").letter

    shown = details(scene.inbox, scene.inbox.the_one(third.id), reveal=False)
    assert [(1, "invalid", "stella"), (2, "invalid", "stella")] == [
        (each.attempt, each.reason, each.replayed["by"]) for each in shown.earlier
    ]
    assert 1 == len(scene.letters("again"))
    capped = scene.replay("again", attempts_max=3)
    assert (0, 1) == (capped.replayed, capped.capped)
    assert scene.open("again") is not None


def test_a_discard_needs_a_reason_is_recorded_and_closes_the_letter(scene: Scene) -> None:
    entry = scene.reject(invalid(scene, "gone"), "gone")

    without = run(scene.stack, "dlq", "discard", entry.letter.id)
    assert (2, True) == (without.returncode, "needs a reason" in without.stderr)
    done = run(scene.stack, "dlq", "discard", entry.letter.id, "--why", "a test truck", "--by", "sam")

    words = f"1 dead letter discarded\n  1 of {GPS.dlq}\n"
    assert (0, words) == (done.returncode, done.stdout), done.stderr
    (after,) = scene.letters("gone")
    assert "discarded" == after.status
    (record,) = [json.loads(one.value() or b"") for one in scene.read(GPS.audit, entry.letter.id)]
    assert ("sam", "a test truck", "discarded", 1) == tuple(
        record[name] for name in ("by", "why", "resolution", "attempt")
    )
    listed = json.loads(run(scene.stack, "dlq", "list", "--open", "--device", "gone", "--format", "json").stdout)
    assert (0, []) == (listed["total"], listed["entries"])
    assert 1 == len(scene.read(GPS.dlq, "gone")), "nothing is deleted"


def test_the_command_line_lists_and_shows(scene: Scene) -> None:
    letter = scene.reject(invalid(scene, "seen"), "seen").letter

    listed = run(scene.stack, "dlq", "list", "--device", "seen", "--format", "json", "--fail-on-found")
    masked = run(scene.stack, "dlq", "show", letter.id[:10])
    revealing = ("--reveal", "--why", "a test")
    shown = run(scene.stack, "dlq", "show", letter.id[:10], "--format", "json", *revealing)
    text = run(scene.stack, "dlq", "show", letter.id, *revealing)

    assert 100 == listed.returncode
    found = json.loads(listed.stdout)
    assert (1, [{"reason": "invalid", "count": 1, "open": 1}]) == (found["total"], found["groups"])
    assert (letter.id, "seen", "open") == tuple(found["entries"][0][name] for name in ("id", "device", "status"))
    row = json.loads(shown.stdout)
    latitude = next(each for each in row["fields"] if each["path"] == "latitude")
    assert ("latitude", latitude["start"]) == (row["failure"]["field"], row["failure"]["position"])
    assert (letter.value or b"").hex() == row["hex"]
    assert scene.encoder.schemas[1][1] == row["schema"]["id"]
    assert "^^ ^^" in text.stdout
    assert "91.0  <-- here" in text.stdout
    assert ("•••  <-- here" in masked.stdout, "91.0" in masked.stdout) == (True, False)


def test_what_is_wrong_is_said_in_one_line_with_its_exit_status(scene: Scene) -> None:
    for arguments, status, words in (
        (("show", "f" * 24), 1, "no dead letter ffffff"),
        (("show", "nonsense"), 2, "is not an id"),
        (("replay", "f" * 24), 1, "no dead letter"),
        (("list", "--topic", "no.such.topic"), 1, "there is no topic no.such.topic"),
        (("list", "--since", "yesterday"), 2, "ISO 8601"),
        (("discard", "--why", "x"), 2, "select dead letters"),
        (("discard", "--all"), 2, "needs a reason: --why"),
        (("replay", "--why", "all of them"), 2, "select dead letters"),
        (("replay", "--all", "--pin", "nonsense"), 2, "this is no pin"),
        (("list", "--reason", "bogus"), 2, "there is no reason 'bogus': reasons are bad_header, device_quarantined"),
        (("replay", "--all", "--transform", "no.module:f"), 2, "importing no.module"),
    ):
        failed = run(scene.stack, "dlq", *arguments)
        assert (status, 1) == (failed.returncode, failed.stderr.count("\n")), failed.stderr
        assert words in failed.stderr


def test_a_transform_repairs_on_the_way_and_what_it_changed_is_recorded(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = scene.encoder.framed(device_id="fixed")
    scene.reject(good + b"junk", "fixed")
    (tmp_path / "fixes.py").write_text(
        "def cut(letter):\n    return letter.value.removesuffix(b'junk')\n"
        "def rubbish(letter):\n    return 42\n"
        "def raises(letter):\n    return letter.nothing\n"
        "def bad(letter):\n    return letter.value + b'x'\n"
        "def leave(letter):\n    return None\n"
        "def moody(letter, seen=[]):\n    seen.append(letter)\n    assert len(seen) < 2\n"
        "    return letter.value.removesuffix(b'junk')\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    before = scene.source_end()
    for name, words in (
        ("rubbish", "it returned int"),
        ("raises", "it raised AttributeError"),
        ("bad", "it would be rejected again .malformed"),
        ("moody", "the transform had accepted the same letters before: .* .0 letters., nothing else was sent"),
    ):
        with pytest.raises(StreamsError, match=words):
            scene.replay("fixed", transform=f"fixes:{name}")
    with pytest.raises(UsageError, match="has no function nothing"):
        scene.replay("fixed", transform="fixes:nothing")
    assert (0, 1) == ((left := scene.replay("fixed", transform="fixes:leave")).replayed, left.left_out)
    assert before == scene.source_end(), "nothing was sent"
    assert scene.open("fixed") is not None, "nothing was lost"

    result = scene.replay("fixed", transform="fixes:cut")

    assert {"clean": 1} == dict(result.outcomes)
    (clean,) = scene.read(GPS.clean, "fixed")
    headers = dict(clean.headers() or ())
    assert good == clean.value()
    assert (b"fixes:cut", b"value") == (headers["dlq.transform"], headers["dlq.changed"])
    assert 64 == len(headers["dlq.original_sha256"] or b"")


def test_foreign_letters_are_read_and_replayed_and_broken_ones_are_refused(scene: Scene) -> None:
    producer = Producer({"bootstrap.servers": scene.stack.bootstrap_servers, "enable.idempotence": True})
    values = {name: scene.encoder.framed(device_id=name) for name in ("connect", "spring", "broken", "stray")}
    connect = {"topic": b"gps.positions.v1", "partition": b"1", "offset": b"7", "exception.message": b"sink is down"}
    spring = {
        "original-topic": b"gps.positions.v1", "original-partition": struct.pack(">i", 2),
        "original-offset": struct.pack(">q", 9), "exception-fqcn": b"org.acme.NoSuchOrderException",
        "exception-message": b"no such order",
    }  # fmt: skip
    headers: dict[str, list[tuple[str, bytes]]] = {
        "connect": [("trace", b"1"), *((f"__connect.errors.{name}", value) for name, value in connect.items())],
        "spring": [(f"kafka_dlt-{name}", value) for name, value in spring.items()],
        "broken": [("dlq.reason", b"malformed")],
        "stray": [("__connect.errors.topic", b"no.such.topic")],
    }
    for name, value in values.items():
        producer.produce(GPS.dlq, value, name.encode(), headers=list(headers[name]))
    assert 0 == producer.flush(30)
    source_records = scene.source_end()

    (from_connect,), (from_spring,) = scene.letters("connect"), scene.letters("spring")
    assert (MASK, [("trace", b"1")]) == (from_connect.letter.message, from_connect.letter.headers)
    assert ("NoSuchOrderException", MASK) == (from_spring.letter.reason, from_spring.letter.message)
    for entry, words in ((from_connect, "sink is down"), (from_spring, "no such order")):
        assert words == details(scene.inbox, scene.inbox.the_one(entry.letter.id), reveal=True).entry.letter.message
    shown = details(scene.inbox, scene.inbox.the_one(from_spring.letter.id), reveal=False)
    assert ("gps.positions.v1", 2, 9) == (shown.origin.topic, shown.origin.partition, shown.origin.offset)
    refused = scene.replay("broken", wait_s=0)
    assert (0, 1, True) == (refused.replayed, refused.refused, "incomplete" in refused.refusals[0].why)
    strayed = scene.replay("stray", wait_s=0)
    assert (0, 1) == (strayed.replayed, strayed.refused)
    assert f"names 'no.such.topic', and what is in {GPS.dlq} goes back to {GPS.source}" in strayed.refusals[0].why
    assert source_records == scene.source_end()
    assert scene.open("broken") is not None
    for name in ("connect", "spring"):
        assert {"clean": 1} == dict(scene.replay(name).outcomes)
        (clean,) = scene.read(GPS.clean, name)
        assert values[name] == clean.value()
        assert not [header for header, _ in headers_of(clean) if header.startswith(("__connect", "kafka_dlt"))]
    assert 1 == discard(scene.inbox, Filter(keys=frozenset({b"broken"})), ME).discarded


def test_personal_fields_are_masked_and_revealing_them_is_written_down(scene: Scene) -> None:
    schema = json.loads(position_schema(scene.stack, 1)[0])
    schema["doc"] = "with personal data"
    for field in schema["fields"]:
        if field["name"] in {"latitude", "event_id"}:
            field["pii"] = True
    schema_id = Registry(settings_of(scene.stack)).register("tests.personal-value", json.dumps(schema))
    body = scene.encoder.body(device_id="private", longitude=200.0, event_id="secret-event", latitude=52.123456)
    entry = scene.reject(frame(schema_id) + body, "private", headers=[("driver", b"secret driver")])

    hidden = run(scene.stack, "dlq", "show", entry.letter.id)
    shown = run(scene.stack, "dlq", "show", entry.letter.id, "--reveal", "--why", "an accident", "--by", "kim")

    as_hex = " ".join(f"{byte:02x}" for byte in b"secre")
    assert "Personal data is masked" in hidden.stdout
    assert not [text for text in ("secret", "52.123456", as_hex) if text in hidden.stdout]
    assert all(text in shown.stdout for text in ("secret-event", "52.123456", "secret driver", as_hex))
    records = [json.loads(one.value() or b"") for one in audit_of(scene, f"{entry.letter.id}:revealed:")]
    assert [("revealed", "kim", "an accident")] == [(one["resolution"], one["by"], one["why"]) for one in records]
    assert scene.open("private") is not None, "to look is not to resolve"
    revealed = reveal(scene.inbox, scene.inbox.the_one(entry.letter.id), ME)
    assert not revealed.view.is_masked


def audit_of(scene: Scene, prefix: str) -> list[Message]:
    reader = TopicReader(scene.stack.bootstrap_servers)
    try:
        return [one for one in reader.records(GPS.audit) if (one.key() or b"").startswith(prefix.encode())]
    finally:
        reader.close()


def test_a_session_that_is_opened_later_fences_the_one_before_and_what_that_had_open_is_void(scene: Scene) -> None:
    settings = settings_of(scene.stack)
    first, second = (ReplaySession(settings, GPS.source, lambda rows: rows) for _ in range(2))
    none = scene.inbox.boxes[0].find(Filter(keys=frozenset({b"nobody"}))).rows
    try:
        first.open(none)
        first.write([Outgoing(GPS.audit, [b"void"], [b"{}"], 0)], letters=1, bytes_used=6)
        second.open(none)
        with pytest.raises(FencedError, match="another replay or discard"):
            first.commit()
    finally:
        first.close()
        second.close()
    assert [] == scene.read(GPS.audit, "void")


@pytest.mark.parametrize("happened", [True, False])
def test_a_commit_of_which_nobody_knows_whether_it_happened_is_settled_by_the_audit_topic(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, *, happened: bool
) -> None:
    device = f"unknown-{happened}"
    scene.reject(invalid(scene, device), device)
    lost: list[int] = []
    commit = TransactionalSink.commit

    def commit_and_lose_the_answer(sink: TransactionalSink, checkpoint: Checkpoint | None = None) -> None:
        if lost:
            commit(sink, checkpoint)
            return
        lost.append(True)
        if happened:
            commit(sink, checkpoint)
        raise WriteInterrupted("the answer was lost")

    monkeypatch.setattr(TransactionalSink, "commit", commit_and_lose_the_answer)

    result = scene.replay(device)

    assert (1, {"rejected": 1}) == (result.replayed, dict(result.outcomes))
    assert [1, 2] == sorted(int(dict(one.headers() or ())["dlq.attempt"] or 0) for one in scene.read(GPS.dlq, device))


def test_a_replayed_reject_does_not_count_against_its_device(scene: Scene) -> None:
    values = [invalid(scene, "busy") for _ in range(60)]
    produce(scene.stack, [Sent("busy", value, key=b"busy") for value in values])
    wait_until(lambda: len(scene.letters("busy", is_open=True)) == 60, "sixty dead letters")
    for attempt in (2, 3):  # as many rejects within a minute as would quarantine the device
        assert {"rejected": 60} == dict(scene.replay("busy").outcomes)
        wait_until(lambda: len(scene.letters("busy", is_open=True)) == 60, f"attempt {attempt} of all")

    produce(scene.stack, [Sent("good", scene.encoder.framed(device_id="busy"), key=b"busy")])

    wait_until(lambda: scene.read(GPS.clean, "busy"), "the good record goes through")
    assert {"invalid"} == {entry.letter.reason for entry in scene.letters("busy")}


def test_without_an_audit_topic_nothing_is_sent(stack: Stack) -> None:
    client = fresh_topics(stack)
    settings = settings_of(stack)
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "enable.idempotence": True})
    producer.produce(GPS.dlq, b"x", b"k", headers=[("kafka_dlt-original-topic", b"gps.positions.v1")])
    producer.flush(30)
    delete_topics(client, {GPS.audit})
    inbox = Inbox(settings)
    try:
        with pytest.raises(StreamsError, match=r"no audit topic .* nothing was sent; run `streams topics apply`"):
            replay(inbox, ReplayOptions(Filter(), ME))
        with pytest.raises(StreamsError, match="nothing was discarded"):
            discard(inbox, Filter(), ME)
    finally:
        inbox.close()
