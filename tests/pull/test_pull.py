"""Cursors, pages and requests of REST sources, into a topic in memory."""

import asyncio
import base64
import json
import logging
from datetime import datetime
from pathlib import Path

import pytest

from logistics.flows.gps import GPS
from streams.errors import StreamsError, UsageError
from streams.flow.decoding import decoder_of
from streams.gateway.rows import RowReader
from streams.pull.client import FetchFailed, RestClient, retry_after_s
from streams.pull.cursor import Course, Cursor, CursorFailed, first, parameters
from streams.pull.declaration import PullSource, load_source, parse_source
from streams.pull.run import Puller
from streams.schemas.catalog import Catalog
from streams.settings import load_settings
from streams.sinks.base import Checkpoint, Outgoing, WriteInterrupted
from tests.gateway.running import position
from tests.pull.rest import Handler, Positions, serving

FIELDS = """
[fields]
event_id = { at = "/event_id" }
sequence = { at = "/sequence" }
device_id = { at = "/device_id" }
event_time = { at = "/event_time" }
latitude = { at = "/latitude" }
longitude = { at = "/longitude" }
"""
PAGES = 'records = "/items"\nevery = "10ms"\n[cursor.page]\nparameter = "page"\nnext = "/next"\n'
TIMES = (
    'records = "/items"\nevery = "10ms"\n[cursor.time]\nparameter = "since"\nfield = "/event_time"\n'
    'start = "2026-01-01T00:00:00Z"\noverlap = "10s"\n'
)
START_MS = 1_767_225_600_000


def declared(text: str, url: str = "http://127.0.0.1:1/v1") -> PullSource:
    return parse_source("test", f'source = "{GPS.source}"\nurl = "{url}"\n{text}{FIELDS}', "test.toml")


class MemorySink:
    """Transactions in memory; interrupted where it is told."""

    def __init__(self) -> None:
        self.values: dict[str, list[bytes | None]] = {}
        self.checkpoint: Checkpoint | None = None
        self.interrupt_at: set[int] = set()
        self.commits = 0
        self._open: list[Outgoing] = []

    def open(self) -> Checkpoint | None:
        self._open = []
        return self.checkpoint

    def write(self, outgoing: list[Outgoing]) -> None:
        self._open += outgoing

    def commit(self, checkpoint: Checkpoint | None = None) -> None:
        self.commits += 1
        if self.commits in self.interrupt_at:
            self._open = []
            raise WriteInterrupted("the broker is gone")
        for one in self._open:
            self.values.setdefault(one.topic, []).extend(one.values)
        self._open, self.checkpoint = [], checkpoint

    def close(self) -> None:
        self._open = []


def run(source: PullSource, sink: MemorySink) -> Puller:
    settings = load_settings()
    reader = RowReader(GPS, Catalog.load().latest(GPS.subject), 7, decoder_of(GPS, settings))
    found = Puller(settings, source, GPS, reader, sink)  # type: ignore[arg-type]
    asyncio.run(found.run(once=True))
    return found


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pause(self: Puller, seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Puller, "_pause", pause)


def test_a_source_that_fails_half_of_the_time_is_read_to_its_end_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.pull.run.ATTEMPTS_MAX", 50)
    answers = Positions([position(i) for i in range(1_000)], failing=0.5)
    sink = MemorySink()
    sink.interrupt_at = {3, 4, 9}
    with serving(answers) as url:
        result = run(declared(PAGES, url), sink).result
        assert len(sink.values[GPS.source]) == 1_000
        assert len(set(sink.values[GPS.source])) == 1_000
        assert answers.failed > 5
        assert result.failures > 5
        run(declared(PAGES, url), sink)
    assert len(sink.values[GPS.source]) == 1_000, "it goes on where it stopped"


def test_what_is_no_event_is_a_dead_letter_in_the_same_transaction() -> None:
    answers = Positions([position(0), position(1, latitude=91), {"nothing": 1}, position(3)])
    sink = MemorySink()
    with serving(answers) as url:
        result = run(declared(PAGES, url), sink).result
    assert (result.sent, result.rejected) == (2, 2)
    assert len(sink.values[GPS.dlq]) == 2
    assert json.loads(sink.values[GPS.dlq][1] or b"") == {"nothing": 1}


def test_times_go_on_from_the_newest_and_ask_for_an_overlap() -> None:
    rows = [position(i, event_time=START_MS + 1_000 * i) for i in range(100)]
    asked: list[str] = []

    def handle(_: str, given: dict[str, str], __: dict[str, str], ___: bytes) -> tuple[int, dict[str, str], bytes]:
        asked.append(given["since"])
        since_ms = datetime.fromisoformat(given["since"]).timestamp() * 1_000
        part = [row for row in rows if row["event_time"] >= since_ms][:40]
        return 200, {}, json.dumps({"items": part}).encode()

    sink = MemorySink()
    with serving(handle) as url:
        run(declared(TIMES, url), sink)
    assert len(set(sink.values[GPS.source])) == 100
    assert asked[0] == "2025-12-31T23:59:50.000Z"
    assert sink.checkpoint is not None
    assert Cursor.parse(sink.checkpoint.metadata) == Cursor(START_MS + 99_000)


def test_a_page_that_loops_ends_the_round_and_a_time_never_goes_back() -> None:
    source = declared(PAGES)
    course = Course(source)
    step = course.step(first(source), {"next": "a"}, [])
    assert (step.cursor.page, step.is_end) == ("a", False)
    assert course.step(first(source), {"next": "a"}, []) == step, "what was not committed is asked for again"
    course.taken(step)
    step = course.step(step.cursor, {"next": "b"}, [])
    course.taken(step)
    with pytest.raises(CursorFailed, match="in a circle"):
        course.step(step.cursor, {"next": "a"}, [])
    assert course.step(step.cursor, {"next": "b"}, []).is_end, "a page that names itself is the last one for now"
    with pytest.raises(CursorFailed):
        course.step(step.cursor, {"next": "x" * 3_000}, [])
    with pytest.raises(CursorFailed):
        course.step(step.cursor, {"next": {"a": 1}}, [])
    source = declared(TIMES)
    cursor = Cursor(START_MS)
    step = Course(source).step(cursor, {}, [{"event_time": START_MS - 3_600_000}])
    assert (step.cursor, step.is_end, step.went_back) == (cursor, True, True)
    assert Course(source).step(cursor, {}, [{"event_time": "never"}, 7]).cursor == cursor


def test_a_cursor_is_what_it_was_after_a_checkpoint() -> None:
    for cursor in (Cursor(), Cursor(1), Cursor(1, 2, "p"), Cursor(page="p")):
        assert Cursor.parse(str(cursor)) == cursor
    for wrong in ("", "[]", '{"since_ms": "x"}', '{"other": 1}'):
        with pytest.raises((ValueError, TypeError)):
            Cursor.parse(wrong)
    assert parameters(declared(TIMES.replace('"10s"', '"10s"\nunit = "s"')), Cursor(START_MS)) == {
        "since": "1767225590"
    }
    sink = MemorySink()
    sink.checkpoint = Checkpoint(3, "of another program")
    with pytest.raises(StreamsError, match="is not readable"):
        run(declared(PAGES), sink)


def test_a_token_is_fetched_renewed_and_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "secret").write_text("s3cr3t-value\n", encoding="utf-8")
    given: list[str] = []
    tokens = iter(["first-token", "second-token"])

    def handle(path: str, _: dict[str, str], headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        if path == "/token":
            assert headers["authorization"] == "Basic " + base64.b64encode(b"me:s3cr3t-value").decode()
            assert body == b"grant_type=client_credentials&scope=read"
            return 200, {}, json.dumps({"access_token": next(tokens), "expires_in": 3_600}).encode()
        given.append(headers["authorization"])
        return (401, {}, b"no") if headers["authorization"] == "Bearer first-token" else (200, {}, b"[]")

    with serving(handle) as url:
        auth = f'[auth]\nkind = "oauth2"\ntoken_url = "{url}/token"\nclient_id = "me"\nscope = "read"\n'
        source = declared(PAGES + auth + f'client_secret_file = "{tmp_path}/secret"\n', url)

        async def ask() -> None:
            async with RestClient(source) as client:
                assert await client.fetch({}) == []

        with caplog.at_level(logging.DEBUG):
            asyncio.run(ask())
    assert given == ["Bearer first-token", "Bearer second-token"]
    assert "s3cr3t-value" not in caplog.text + repr(source)


BAD: list[tuple[tuple[int, dict[str, str], bytes], str]] = [
    ((302, {"Location": "http://evil.example/"}, b""), "redirects"),
    ((200, {}, b"<html>"), "no JSON"),
    ((200, {}, b"[" * 20_000), "no JSON"),
    ((200, {"Content-Encoding": "gzip"}, b"x"), "not gzip"),
    ((200, {}, b" " * (17 * 1024 * 1024)), "has more than"),
    ((500, {}, b"<b>broken</b>"), "status 500: <b>broken</b>"),
    ((200, {}, b"{}"), "has no records at /items"),
    ((200, {}, json.dumps({"items": [{}] * 10_001}).encode()), "at most 10,000 records"),
]


@pytest.mark.parametrize(("answer", "words"), BAD, ids=[words for _, words in BAD])
def test_what_is_no_answer_is_said_and_commits_nothing(
    answer: tuple[int, dict[str, str], bytes], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.pull.run.ATTEMPTS_MAX", 2)
    handle: Handler = lambda *_: answer  # noqa: E731
    sink = MemorySink()
    with serving(handle) as url, pytest.raises(FetchFailed, match=words.replace("[", r"\[")):
        run(declared(PAGES, url), sink)
    assert (sink.values, sink.checkpoint) == ({}, None)


def test_a_source_says_when_it_may_be_asked_again() -> None:
    assert retry_after_s("7", 0.0) == 7.0
    assert retry_after_s("Thu, 01 Jan 2026 00:00:30 GMT", START_MS / 1_000) == pytest.approx(30.0)
    assert retry_after_s("999999", 0.0) == 3_600.0
    assert retry_after_s("Thu, 01 Jan 2015 00:00:30 GMT", START_MS / 1_000) == 0.0
    assert [retry_after_s(text, 0.0) for text in (None, "soon", "")] == [None, None, None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PAGES.replace("next =", "nxt ="), "'next' is missing"),
        ('every = "soon"\n' + PAGES.replace('every = "10ms"\n', ""), "'soon' is no time"),
        ("[cursor]\n", "say how it goes on"),
        (TIMES.replace("2026-01-01T00:00:00Z", "yesterday"), "declares no source"),
        (TIMES + 'unit = "weeks"\n', "unit of"),
        (PAGES + '[auth]\nkind = "magic"\n', "kind of [auth]"),
        (PAGES + '[auth]\nkind = "bearer"\ntoken = "secret"\n', "secrets are given as files"),
        ("surprise = 1\n" + PAGES, "'surprise' is none of"),
    ],
)
def test_a_file_that_declares_no_source_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        declared(text)
    assert words in str(raised.value)


def test_addresses_with_a_password_and_unknown_names_are_refused(tmp_path: Path) -> None:
    for url in ("ftp://a/b", "http://user:pw@a/b", "nonsense"):
        with pytest.raises(UsageError):
            declared(PAGES, url)
    with pytest.raises(UsageError, match="there is: none yet"):
        load_source(tmp_path, "nope")
    with pytest.raises(UsageError, match="a name has"):
        load_source(tmp_path, "../nope")


@pytest.mark.parametrize("masks_words", [False, True])
def test_what_a_source_says_of_a_refusal_is_told_unless_records_are_personal(masks_words: bool) -> None:
    def handle(_: str, __: dict[str, str], ___: dict[str, str], ____: bytes) -> tuple[int, dict[str, str], bytes]:
        return 422, {}, b"no such customer: anna-marked-7"

    with serving(handle) as url:
        source = declared(PAGES, url)

        async def ask() -> None:
            async with RestClient(source, masks_words=masks_words) as client:
                await client.fetch({})

        with pytest.raises(FetchFailed, match="status 422") as refused:
            asyncio.run(ask())
    assert ("anna-marked-7" in str(refused.value)) is not masks_words
