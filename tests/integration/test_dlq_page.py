"""The review page in a browser, over real topics: what one sees, what one presses, and what one cannot do."""

import json
import os
import shutil
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from confluent_kafka import Producer
from playwright.sync_api import Browser, Page, sync_playwright
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount

from loadtest.oracle.read import TopicReader
from streams.deadletters.envelope import envelope_headers
from streams.local.stack import Stack
from streams.operators.rejects import DeadLetter, Reason, Reject
from streams.pipelines.gps import GPS
from streams.review.web import dead_letters_app
from streams.settings import Settings
from tests.integration.kafka_helpers import fresh_topics, settings_of
from tests.integration.test_rejects import Encoder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.kafka,
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"),
]
SCREENSHOTS = os.environ.get("DLQ_SCREENSHOTS")
EVIL = "<script>document.title='owned'</script>"
TOKEN = "a-token-of-some-length"  # noqa: S105 - of this test only


def put_letters(stack: Stack) -> None:
    """Letters of several reasons, as a worker writes them; one with a key that would like to be HTML."""
    encoder = Encoder(stack)
    schema_id = encoder.schemas[1][1]
    producer = Producer({"bootstrap.servers": stack.bootstrap_servers, "partitioner": "murmur2_random"})
    values = [
        (Reason.INVALID, "car-1", "latitude is outside [-90, 90]", encoder.framed(device_id="car-1", latitude=91.0)),
        (Reason.MALFORMED, "car-2", "not a value of schema: EOFError", encoder.framed(device_id="car-2")[:50]),
        (Reason.NOT_FRAMED, EVIL, f"message {EVIL}", b'{"device_id": "' + EVIL.encode() + b'"}'),
        *(
            (Reason.KEY_MISMATCH, f"many-{number}", "the key is not the device's", encoder.framed())
            for number in range(60)
        ),
    ]
    now_ms = int(time.time() * 1000)
    for offset, (reason, key, message, value) in enumerate(values):
        letter = DeadLetter(
            Reject(0, reason, message, schema_id), 0, offset, now_ms + offset, key.encode(), value, [("trace", b"abc")]
        )
        headers: Any = envelope_headers(letter, source=GPS.source, group=GPS.group, now_ms=letter.timestamp_ms)
        producer.produce(GPS.dlq, value, key.encode(), headers=headers, timestamp=now_ms + offset)
    assert 0 == producer.flush(30)


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The page below a path of another application, as the monitor mounts it; its address."""
    app = Starlette(routes=[Mount("/dead-letters", dead_letters_app(settings))])
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/dead-letters"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def address(stack: Stack) -> Iterator[str]:
    fresh_topics(stack)
    put_letters(stack)
    with served(settings_of(stack)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages that fail the test on an error in the browser, or on a request to anywhere else."""
    problems: list[str] = []
    contexts = []

    def make(**options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: None if "//127.0.0.1:" in request.url else problems.append(f"request to {request.url}"),
        )
        return page

    yield make
    for context in contexts:
        context.close()
    assert [] == problems


def seen(page: Page, name: str) -> None:
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=True)


def audit(stack: Stack) -> dict[str, dict[str, Any]]:
    reader = TopicReader(stack.bootstrap_servers)
    try:
        return {(one.key() or b"").decode(): json.loads(one.value() or b"") for one in reader.records(GPS.audit)}
    finally:
        reader.close()


def source_records(stack: Stack) -> int:
    reader = TopicReader(stack.bootstrap_servers)
    try:
        return sum(1 for _ in reader.records(GPS.source))
    finally:
        reader.close()


def test_the_list_counts_filters_and_pages(address: str, open_page: Callable[..., Page]) -> None:
    page = open_page(color_scheme="light", viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/")

    assert "63 dead letters, 63 open" == page.locator("h1").inner_text()
    assert 50 == page.locator("table.letters tbody tr").count()
    seen(page, "list-light")
    page.get_by_role("link", name="older").click()
    assert 13 == page.locator("table.letters tbody tr").count()
    page.get_by_role("link", name="malformed").first.click()
    assert "1 dead letter, 1 open" == page.locator("h1").inner_text()
    page.locator("input[name=reason]").fill("")
    page.locator("input[name=device]").fill("car-1")
    page.get_by_role("button", name="Filter").click()
    assert "1 dead letter, 1 open" == page.locator("h1").inner_text()
    assert page.locator("table.letters tbody tr").first.inner_text().count("invalid") == 1


def test_what_a_record_says_is_text_and_never_html(address: str, open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.goto(f"{address}/?reason=not_framed")
    assert EVIL in page.locator("table.letters").inner_text()
    page.locator("a.id").first.click()
    assert EVIL in page.locator("main").inner_text()
    assert "owned" != page.title()
    assert 0 == page.locator("script").count()


def test_a_letter_is_shown_with_the_place_where_it_fails(address: str, open_page: Callable[..., Page]) -> None:
    page = open_page(color_scheme="dark", viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/?device=car-1")
    page.locator("a.id").first.click()

    assert "latitude" in page.locator("tr.failed").inner_text()
    assert 8 == page.locator("pre.hex mark").count()
    assert "Fails at byte" in page.locator("main").inner_text()
    seen(page, "show-dark")


def test_it_works_on_a_phone(address: str, open_page: Callable[..., Page]) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, is_mobile=True, color_scheme="light")
    for path, name in (("/", "phone-list"), ("/?device=car-2", "phone-filtered")):
        page.goto(f"{address}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        seen(page, name)
    page.locator("a.id").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    seen(page, "phone-show")


def test_replay_and_discard_ask_first_and_are_written_down(
    address: str, stack: Stack, open_page: Callable[..., Page]
) -> None:
    page = open_page(color_scheme="light")
    before = source_records(stack)
    page.goto(f"{address}/?device=car-1")
    letter_id = page.locator("a.id").first.inner_text()
    page.locator("a.id").first.click()
    page.get_by_role("link", name="Replay …").click()
    assert "Replay 1 open dead letter?" == page.locator("h1").inner_text()
    seen(page, "ask-replay")
    assert before == source_records(stack), "asking is not doing"
    page.get_by_label("Your name").fill("robin")
    page.get_by_label("What was repaired").fill("the tracker's firmware")
    page.get_by_role("button", name="Replay").click()
    assert "1 dead letter replayed" == page.locator("h1").inner_text()
    seen(page, "done-replay")
    assert before + 1 == source_records(stack)
    assert "robin (review page, 127.0.0.1)" == audit(stack)[letter_id]["by"]
    page.get_by_role("link", name="The letter").click()
    assert "replayed" in page.locator("h1").inner_text()

    page.goto(f"{address}/?reason=key_mismatch")
    page.get_by_role("link", name="Discard 60 open …").click()
    page.get_by_label("Your name").fill("robin")
    page.get_by_role("button", name="Discard").click()
    assert "Discard 60 open dead letters?" == page.locator("h1").inner_text(), "without a reason nothing is sent"
    page.get_by_label("Why nothing more is to be done").fill("a test fleet")
    page.get_by_role("button", name="Discard").click()
    assert "60 dead letters discarded" == page.locator("h1").inner_text()
    page.goto(f"{address}/?status=resolved")
    assert "61 dead letters, 0 open" == page.locator("h1").inner_text()
    discarded = [each for each in audit(stack).values() if each["resolution"] == "discarded"]
    assert (60, {"a test fleet"}) == (len(discarded), {each["why"] for each in discarded})


def answer(url: str, form: dict[str, str] | None = None, **headers: str) -> tuple[int, str]:
    data = None if form is None else urllib.parse.urlencode(form).encode()
    asked = urllib.request.Request(url, data=data, headers={key.replace("_", "-"): v for key, v in headers.items()})  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=60) as response:  # noqa: S310 - our own address
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_change_that_no_page_of_ours_asked_for_is_refused(address: str, stack: Stack) -> None:
    before = audit(stack)
    form = {"by": "mallory", "why": "because", "reason": "malformed"}
    for headers, words in (
        ({}, "not from this page"),
        ({"Cookie": "streams_dlq_session=made.up.cookie"}, "not from this page"),
        ({"Origin": "https://evil.example"}, "another site"),
        ({"Sec_Fetch_Site": "cross-site"}, "another site"),
        ({"Host": "evil.example"}, "this machine only"),
        ({"X_Forwarded_For": "10.0.0.1"}, "this machine only"),
    ):
        status, text = answer(f"{address}/discard", form, **headers)
        assert (403, True) == (status, words in text), (headers, text)
    assert before == audit(stack)


def test_what_makes_no_sense_is_said_and_nothing_else(address: str) -> None:
    for path, status, words in (
        ("/?page=-1", 400, "does not know"),
        ("/?schema_id=abc", 400, "is no schema id"),
        ("/?since=yesterday", 400, "is no time"),
        ("/letters/nonsense", 400, "is not an id"),
        (f"/letters/{'f' * 24}", 404, "no dead letter"),
        ("/nothing", 404, "Not Found"),
        ("/?device=%ff%fe", 200, "Nothing here"),
    ):
        found, text = answer(address + path)
        assert (status, True) == (found, words in text), (path, text)
    assert 413 == answer(f"{address}/discard", {"why": "x" * 100_000})[0]


def test_with_a_token_nobody_sees_anything_without_it(stack: Stack, open_page: Callable[..., Page]) -> None:
    settings = settings_of(stack).model_copy(update={"streams_admin_token": SecretStr(TOKEN)})
    with served(settings) as address:
        page = open_page()
        page.goto(f"{address}/")
        assert page.url.endswith("/login")
        seen(page, "login")
        page.get_by_label("Token").fill("wrong-token")
        page.get_by_role("button").click()
        assert "This is not the token." in page.locator("main").inner_text()
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button").click()
        assert "dead letters" in page.locator("h1").inner_text()
        page.goto(f"{address}/discard?device=car-2")
        page.get_by_label("Your name").fill("robin")
        page.get_by_label("Why nothing more is to be done").fill("with a token")
        page.get_by_role("button", name="Discard").click()
        assert "1 dead letter discarded" == page.locator("h1").inner_text()
        assert 401 == answer(f"{address}/discard", {"by": "x", "why": "y"})[0]
        assert 200 == answer(f"{address}/", Authorization=f"Bearer {TOKEN}")[0]
        assert 200 == answer(f"{address}/", Authorization=f"Bearer {TOKEN}", Host="elsewhere.example")[0]
