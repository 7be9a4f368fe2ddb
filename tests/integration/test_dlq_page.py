"""The review page in a browser, as the monitor serves it, over real topics: what one sees, presses, and cannot do."""

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from loadtest.oracle.read import TopicReader
from logistics.flows.gps import GPS
from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.deadletters.letter.envelope import envelope_headers
from streams.deadletters.web.steward import FRESH_S
from streams.local.stack import Stack
from streams.schemas.client import Registry
from tests.integration.kafka_helpers import fresh_topics, settings_of
from tests.integration.monitors import monitor_over
from tests.integration.test_rejects import Encoder
from tests.integration.workers import Worker, position_schema, wait_until
from tests.left_out import chromium

pytestmark = [pytest.mark.kafka, pytest.mark.chromium, pytest.mark.timeout(240, func_only=True)]
SCREENSHOTS = os.environ.get("DLQ_SCREENSHOTS")
EVIL = "<script>document.title='owned'</script>"
PRIVATE = "secret-event"
PHONE: Any = {"width": 390, "height": 844}


def token_of(right: str) -> str:
    return f"a-token-for-{right}-of-some-length"


class Letters:
    """Writes letters of several reasons, as a worker does; one with a key that would like to be HTML."""

    def __init__(self, stack: Stack) -> None:
        self._encoder = Encoder(stack)
        self._schema_id = self._encoder.schemas[1][1]
        self._servers = stack.bootstrap_servers
        self._offset = 0

    def put(self, *letters: tuple[Reason, str, str, bytes], source: str = GPS.source) -> None:
        """Letters of a reason, with key, message and value each; `source`: the topic that their envelopes name."""
        producer = Producer(
            {"bootstrap.servers": self._servers, "partitioner": "murmur2_random", "enable.idempotence": True}
        )
        now_ms = int(time.time() * 1000)
        for reason, key, message, value in letters:
            offset, self._offset = self._offset, self._offset + 1
            letter = DeadLetter(
                Reject(0, reason, message, self._schema_id), 0, offset, now_ms + offset, key.encode(), value,
                [("trace", b"abc")],
            )  # fmt: skip
            headers: Any = envelope_headers(letter, source=source, group=GPS.group, now_ms=letter.timestamp_ms)
            producer.produce(GPS.dlq, value, key.encode(), headers=headers, timestamp=letter.timestamp_ms)
        assert 0 == producer.flush(30)
        time.sleep(FRESH_S)  # a page that was read before may be shown for so long

    def put_mixture(self) -> None:
        """63 letters of four reasons."""
        framed = self._encoder.framed
        self.put(
            (Reason.INVALID, "car-1", "latitude is outside [-90, 90]", framed(device_id="car-1", latitude=91.0)),
            (Reason.MALFORMED, "car-2", "not a value of schema: EOFError", framed(device_id="car-2")[:50]),
            (Reason.NOT_FRAMED, EVIL, f"message {EVIL}", b'{"device_id": "' + EVIL.encode() + b'"}'),
        )
        self.put_many("many", 60)

    def put_many(self, name: str, count: int) -> None:
        """Letters of one reason, of so many devices."""
        framed = self._encoder.framed
        self.put(*((Reason.KEY_MISMATCH, f"{name}-{n}", "the key is not the device's", framed()) for n in range(count)))

    def put_private(self, stack: Stack, key: str) -> None:
        """A letter of a schema with personal data."""
        schema = json.loads(position_schema(stack, 1)[0])
        next(field for field in schema["fields"] if field["name"] == "event_id")["pii"] = True
        schema_id = Registry(settings_of(stack)).register("tests.personal-page-value", json.dumps(schema))
        body = self._encoder.body(device_id=key, event_id=PRIVATE, longitude=200.0)
        self.put((Reason.INVALID, key, "longitude is outside [-180, 180]", b"\0" + schema_id.to_bytes(4) + body))


@contextmanager
def served(stack: Stack, directory: Path, **environment: str) -> Iterator[str]:
    """The page as `streams monitor` serves it; its address."""
    nobody = Worker(stack, directory, "none")  # the page wants no worker
    with monitor_over(stack, nobody, directory, environment) as monitor:
        yield f"{monitor.url}/dead-letters"


@pytest.fixture(scope="module")
def letters(stack: Stack) -> Letters:
    fresh_topics(stack)
    letters = Letters(stack)
    letters.put_mixture()
    return letters


@pytest.fixture(scope="module")
def address(stack: Stack, letters: Letters, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(stack, tmp_path_factory.mktemp("page")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
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
        page.on("console", lambda said: problems.append(said.text) if "Content Security" in said.text else None)
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
    follow(page.get_by_role("link", name="older"))
    assert 13 == page.locator("table.letters tbody tr").count()
    follow(page.get_by_role("link", name="malformed").first)
    assert "1 dead letter, 1 open" == page.locator("h1").inner_text()
    page.locator("input[name=reason]").fill("")
    page.locator("input[name=device]").fill("car-1")
    follow(page.get_by_role("button", name="Filter"))
    assert "1 dead letter, 1 open" == page.locator("h1").inner_text()
    assert page.locator("table.letters tbody tr").first.inner_text().count("invalid") == 1


def test_what_a_record_says_is_text_and_never_html(address: str, open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.goto(f"{address}/?reason=not_framed")
    assert EVIL in page.locator("table.letters").inner_text()
    follow(page.locator("a.id").first)
    assert EVIL in page.locator("main").inner_text()
    assert "owned" != page.title()
    assert 0 == page.locator("script").count()


def test_a_letter_is_shown_with_the_place_where_it_fails(address: str, open_page: Callable[..., Page]) -> None:
    page = open_page(color_scheme="dark", viewport={"width": 1280, "height": 900})
    page.goto(f"{address}/?device=car-1")
    follow(page.locator("a.id").first)

    assert "latitude" in page.locator("tr.failed").inner_text()
    assert 8 == page.locator("pre.hex mark").count()
    assert "Fails at byte" in page.locator("main").inner_text()
    seen(page, "show-dark")


def fits(page: Page, name: str) -> None:
    """Nothing of the page is wider than the screen."""
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
    cut = page.evaluate(
        """width => [...document.querySelectorAll('main *, header *')]
            .filter(node => !node.closest('pre') && node.getBoundingClientRect().right > width + 1)
            .map(node => node.outerHTML.slice(0, 200))""",
        PHONE["width"],
    )
    assert [] == cut, name
    seen(page, name)


def test_every_page_fits_on_a_phone(address: str, letters: Letters, open_page: Callable[..., Page]) -> None:
    letters.put((Reason.NOT_FRAMED, "phone-" + "x" * 200, "a message " + "without_spaces" * 30, b"value" * 40))
    page = open_page(viewport=PHONE, is_mobile=True, color_scheme="light")
    for path, name in (
        ("/", "list"), ("/?device=car-2", "filtered"), ("/?group_by=device", "devices"),
        ("/replay?reason=malformed", "ask-replay"), ("/discard?reason=malformed", "ask-discard"),
        ("/replay?reason=too_large", "ask-nothing"), ("/?page=nonsense", "problem"),
    ):  # fmt: skip
        page.goto(f"{address}{path}")
        fits(page, f"phone-{name}")
    for reason in ("malformed", "invalid", "not_framed"):
        page.goto(f"{address}/?reason={reason}")
        follow(page.locator("a.id").first)
        fits(page, f"phone-show-{reason}")
    page.goto(f"{address}/discard?reason=not_framed&device=phone-{'x' * 200}")
    act(page, "Discard", "robin", "was for a phone")
    fits(page, "phone-done")


def follow(link: Locator) -> None:
    """Click what leads to another page, and wait for that page: a click returns before the answer has come."""
    with link.page.expect_navigation():
        link.click()


def act(page: Page, button: str, by: str, why: str) -> None:
    """Fill in a form that changes something, and press its button."""
    page.get_by_label("Your name").fill(by)
    page.locator("textarea[name=why]").fill(why)
    follow(page.get_by_role("button", name=button))


def test_replay_and_discard_ask_first_and_are_written_down(
    address: str, stack: Stack, open_page: Callable[..., Page]
) -> None:
    page = open_page(color_scheme="light")
    before = source_records(stack)
    page.goto(f"{address}/?device=car-1")
    letter_id = page.locator("a.id").first.inner_text()
    follow(page.locator("a.id").first)
    follow(page.get_by_role("link", name="Replay …"))
    assert "Replay 1 open dead letter into gps.positions.v1?" == page.locator("h1").inner_text()
    seen(page, "ask-replay")
    assert before == source_records(stack), "asking is not doing"
    page.get_by_label("Your name").fill("robin")
    page.get_by_label("What was repaired").fill("the tracker's firmware")
    follow(page.get_by_role("button", name="Replay"))
    assert "1 dead letter replayed into gps.positions.v1" == page.locator("h1").inner_text()
    seen(page, "done-replay")
    assert before + 1 == source_records(stack)
    assert "robin (review page, 127.0.0.1)" == audit(stack)[letter_id]["by"]
    follow(page.get_by_role("link", name="The letter"))
    assert "replayed" in page.locator("h1").inner_text()

    page.goto(f"{address}/?reason=key_mismatch")
    follow(page.get_by_role("link", name="Discard 60 open …"))
    page.get_by_label("Your name").fill("robin")
    page.get_by_role("button", name="Discard").click()
    assert "Discard 60 open dead letters of gps.positions.v1.dlq?" == page.locator("h1").inner_text(), (
        "without a reason nothing is sent"
    )
    page.get_by_label("Why nothing more has to be done").fill("a test fleet")
    follow(page.get_by_role("button", name="Discard"))
    assert "60 dead letters of gps.positions.v1.dlq discarded" == page.locator("h1").inner_text()
    page.goto(f"{address}/?status=resolved&reason=key_mismatch")
    assert "60 dead letters, 0 open" == page.locator("h1").inner_text()
    resolved = [each for each in audit(stack).values() if each.get("reason") == "key_mismatch"]
    discarded = [each for each in resolved if each["resolution"] == "discarded"]
    assert (60, {"a test fleet"}) == (len(discarded), {each["why"] for each in discarded})


@pytest.mark.parametrize("button", ["Replay", "Discard"])
def test_what_comes_after_the_question_is_not_touched_nor_is_what_was_done_meanwhile(
    address: str, stack: Stack, letters: Letters, open_page: Callable[..., Page], button: str
) -> None:
    name = f"asked-{button.lower()}"
    letters.put_many(name, 3)
    page, another = open_page(), open_page()
    page.goto(f"{address}/?reason=key_mismatch")
    before = source_records(stack)
    follow(page.get_by_role("link", name=f"{button} 3 open …"))
    letters.put_many(f"{name}-later", 50)
    another.goto(f"{address}/discard?device={name}-0")
    act(another, "Discard", "kim", "before robin")
    act(page, button, "robin", "asked about three")

    done = "replayed into gps.positions.v1" if button == "Replay" else "of gps.positions.v1.dlq discarded"
    assert f"2 dead letters {done}" == page.locator("h1").inner_text()
    assert before + (2 if button == "Replay" else 0) == source_records(stack)
    page.goto(f"{address}/?reason=key_mismatch")
    assert "50 dead letters, 50 open" == page.locator("h1").inner_text()
    follow(page.get_by_role("link", name="Discard 50 open …"))
    act(page, "Discard", "robin", "the rest")


def test_a_letter_that_names_another_topic_is_sent_nowhere(
    address: str, letters: Letters, open_page: Callable[..., Page]
) -> None:
    letters.put((Reason.TOO_LARGE, "forged", "a message", b"value"), source="orders.events.v1")
    letters.put((Reason.TOO_LARGE, "honest", "a message", b"value"))
    page = open_page(color_scheme="light")
    page.goto(f"{address}/replay?reason=too_large")
    assert "Replay 1 open dead letter into gps.positions.v1?" == page.locator("h1").inner_text()
    said = page.locator("main").inner_text()
    assert "1 letter cannot be replayed, and stays open" in said
    assert "its envelope names 'orders.events.v1'" in said
    seen(page, "ask-refused")
    act(page, "Replay", "robin", "larger ones are taken now")
    assert "1 dead letter replayed into gps.positions.v1" == page.locator("h1").inner_text()
    assert "its envelope names 'orders.events.v1'" in page.locator("main").inner_text()


def test_a_form_that_does_not_say_what_it_asked_about_does_nothing(guarded: str, stack: Stack) -> None:
    before = audit(stack)
    for pin in ({}, {"pin": "nonsense"}, {"pin": "x" * 40_000}, {"pin": "a@1/a@2"}):
        form = {"by": "mallory", "why": "because", "device": "car-1", **pin}
        for act_path in ("replay", "discard"):
            status, text = answer(f"{guarded}/{act_path}", form, Authorization=f"Bearer {token_of('everything')}")
            assert (400, True) == (status, "does not say about which letters" in text), (pin, text)
    assert before == audit(stack)


def test_the_other_buttons_lead_where_they_say(address: str, open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.goto(f"{address}/?reason=malformed")
    follow(page.get_by_role("link", name="Discard 1 open …"))
    follow(page.get_by_role("link", name="Go back"))
    assert f"{address}/?reason=malformed" == page.url
    follow(page.get_by_role("link", name="Replay 1 open …"))
    follow(page.get_by_role("link", name="Go back"))
    assert f"{address}/?reason=malformed" == page.url
    follow(page.locator("a.id").first)
    page.get_by_text("Schema", exact=True).click()
    assert '"GpsPosition"' in page.locator("details pre").inner_text()
    follow(page.get_by_role("link", name="Discard …"))
    act(page, "Discard", "robin", "cannot be saved")
    seen(page, "done-discard")
    follow(page.get_by_role("link", name="The letter"))
    assert "discarded" in page.locator("h1").inner_text()
    assert 0 == page.get_by_role("link", name="Replay …").count()
    follow(page.get_by_role("link", name="Dead letters"))
    assert f"{address}/" == page.url
    page.goto(f"{address}/discard?reason=malformed")
    assert "None of them is open." in page.locator("main").inner_text()
    follow(page.get_by_role("link", name="Go back"))
    page.get_by_label("Status").select_option("all")
    page.get_by_label("Count by").select_option("device")
    follow(page.get_by_role("button", name="Filter"))
    follow(page.get_by_role("link", name="car-2"))
    assert "1 dead letter, 0 open" == page.locator("h1").inner_text()


def test_personal_data_is_shown_by_a_button_and_that_is_written_down(
    address: str, stack: Stack, letters: Letters, open_page: Callable[..., Page]
) -> None:
    letters.put_private(stack, "private-1")
    page = open_page(color_scheme="light")
    page.goto(f"{address}/?device=private-1")
    letter_id = page.locator("a.id").first.inner_text()
    follow(page.locator("a.id").first)
    assert PRIVATE not in page.content()
    seen(page, "show-masked")
    page.get_by_text("Personal data is masked").click()
    act(page, "Show it; this is written down", "robin", "an accident")
    assert PRIVATE in page.locator("table.fields").inner_text()
    assert "Personal data is shown" in page.locator("main").inner_text()
    seen(page, "show-revealed")
    (record,) = [value for key, value in audit(stack).items() if key.startswith(f"{letter_id}:revealed:")]
    assert ("revealed", "an accident") == (record["resolution"], record["why"])


def answer(url: str, form: dict[str, str] | None = None, **headers: str) -> tuple[int, str]:
    data = None if form is None else urllib.parse.urlencode(form).encode()
    asked = urllib.request.Request(url, data=data, headers={key.replace("_", "-"): v for key, v in headers.items()})  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=60) as response:  # noqa: S310 - our own address
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_value_of_which_nobody_knows_the_schema_is_masked(
    address: str, letters: Letters, open_page: Callable[..., Page]
) -> None:
    letters.put((Reason.NOT_FRAMED, "private-json", "no magic byte", b'{"driver": "a name"}'))
    page = open_page(color_scheme="light")
    page.goto(f"{address}/?device=private-json")
    follow(page.locator("a.id").first)
    assert "driver" not in page.content()
    assert "72 69 76 65" not in page.locator("pre.hex").inner_text()
    seen(page, "show-unknown")
    page.get_by_text("Personal data is masked").click()
    act(page, "Show it; this is written down", "robin", "to see who sends it")
    assert "72 69 76 65" in page.locator("pre.hex").inner_text()


def test_each_header_is_sent_once_so_that_a_browser_sends_where_a_form_comes_from(address: str) -> None:
    policies = {"/": "same-origin", "/style.css": "same-origin", "/nothing": "no-referrer", "/../": "no-referrer"}
    for path, policy in policies.items():
        headers = headers_of(address + path)
        for name in ("referrer-policy", "content-security-policy", "x-content-type-options"):
            assert 1 == len(headers.get_all(name, [])), (path, name)
        assert policy == headers["referrer-policy"], path


def headers_of(url: str) -> Message:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - our own address
            headers: Message = response.headers
            return headers
    except urllib.error.HTTPError as error:
        return error.headers


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
        ({"Via": "1.1 proxy"}, "this machine only"),
        ({"True_Client_IP": "10.0.0.1"}, "this machine only"),
    ):
        status, text = answer(f"{address}/discard", form, **headers)
        assert (403, True) == (status, words in text), (headers, text)
    assert before == audit(stack)


def test_what_makes_no_sense_is_said_and_nothing_else(address: str) -> None:
    for path, status, words in (
        ("/?page=-1", 400, "does not know"), ("/?page=%D9%A3", 400, "does not know"),
        ("/?page=", 400, "does not know"), ("/?status=x", 400, "does not know"), ("/?group_by=", 400, "does not know"),
        ("/?schema_id=abc", 400, "is no schema id"), ("/?schema_id=--5", 400, "is no schema id"),
        ("/?schema_id=99999999999999999999", 400, "is no schema id"),
        ("/?since=yesterday", 400, "is no time"),
        ("/?since=%00", 400, "is no time"), ("/?id=%FF", 400, "is no id"), ("/?id=-1", 400, "is no id"),
        (f"/?device={'x' * 2_000}", 400, "too long"), (f"/?reason={'x' * 20_000}", 400, "too long"),
        ("/?raeson=invalid", 400, "is nothing to ask"), ("/?a[]=1&a[]=2", 400, "is nothing to ask"),
        ("/?reason=invalid&reason=malformed", 400, "twice"), ("/replay?reason=a&reason=b", 400, "twice"),
        ("/discard?id=zzz", 400, "is no id"), ("/?reason=bogus", 400, "there is no reason"),
        ("/replay?reason=bogus", 400, "there is no reason"),
        ("/letters/nonsense", 400, "is not an id"), ("/letters/%00", 400, "is not an id"),
        ("/letters/%ff%fe", 400, "is not an id"), (f"/letters/{'f' * 5_000}", 400, "is not an id"),
        (f"/letters/{'f' * 24}", 404, "no dead letter"),
        ("/nothing", 404, "Not Found"),
        ("/?device=%ff%fe", 200, "Nothing here"), ("/?&&&=", 400, "is nothing to ask"), ("/?%", 400, "is nothing"),
        ("/?page=999999", 200, "Nothing here"), ("/?since=9999-12-31T23:59", 200, "Nothing here"),
    ):  # fmt: skip
        found, text = answer(address + path)
        assert (status, True) == (found, words in text), (path, found, text)
        assert "Traceback" not in text


def test_odd_cookies_and_headers_are_no_session_and_no_failure(address: str) -> None:
    port = urllib.parse.urlsplit(address).port
    for cookie in ("\xe9\xff", "=;=;;;", "a" * 5_000, '"', "\xf0\x9f", "...", "x.read.99999999999999999999.y", "."):
        for name in (f"streams_dlq_session_{port}", "streams_dlq_session", "x"):
            status, text = answer(f"{address}/", Cookie=f"{name}={cookie}")
            assert (200, True) == (status, "dead letters" in text), (cookie, text)
    for host in ("[::1", "\xe9", "a@b"):
        assert 403 == answer(f"{address}/", Host=host)[0], host
    for headers in ({"Origin": "http://["}, {"Origin": "\xe9"}, {"Origin": ""}, {"Sec_Fetch_Site": "\xe9"}):
        assert 403 == answer(f"{address}/discard", {"by": "x", "why": "y"}, **headers)[0], headers


def test_odd_forms_are_refused_with_one_answer(address: str) -> None:
    assert 413 == answer(f"{address}/discard", {"why": "x" * 200_000})[0]
    for body, headers, status in (
        (b"\xff\xfe", {}, 400), (b"csrf=%FF", {}, 403), (b"csrf=%C3%A9", {}, 403),
        (b"a=1&a=2", {}, 400), (b"&".join(b"f%d=1" % number for number in range(200)), {}, 400),
        (b"{}", {"Content-Type": "application/json"}, 400),
        (b"--x", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
    ):  # fmt: skip
        asked = urllib.request.Request(f"{address}/discard", data=body, headers=headers)  # noqa: S310 - our own address
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(asked, timeout=60)  # noqa: S310 - as above
        assert status == caught.value.code, body


def test_a_name_that_is_not_the_monitors_is_answered_nowhere(address: str) -> None:
    monitor = address.removesuffix("/dead-letters")
    for path in ("/", "/api/overview", "/api/live", "/metrics", "/v3/kafka", "/static/monitor.js"):
        for host in ("evil.example", "evil.example:8080", "127.0.0.1.nip.io", "monitor", "", "[::1"):
            status, text = answer(monitor + path, Host=host)
            assert (403, True) == (status, "STREAMS_WEB_NAMES" in text), (path, host, status)
        if path != "/api/live":
            assert 200 == answer(monitor + path, Host="localhost:1")[0]
    for path in ("/healthz", "/readyz"):
        assert 200 == answer(monitor + path, Host="10.0.0.7")[0]


def signed_in(page: Page, address: str, right: str) -> None:
    page.goto(f"{address}/login")
    page.get_by_label("Token").fill(token_of(right))
    follow(page.get_by_role("button", name="Sign in"))
    page.wait_for_url(f"{address}/")


TOKENS = {
    "STREAMS_ADMIN_TOKEN": token_of("everything"),
    **{f"STREAMS_REVIEW_TOKEN_{right.upper()}": token_of(right) for right in ("read", "replay", "reveal")},
}


@pytest.fixture(scope="module")
def guarded_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def guarded(stack: Stack, letters: Letters, guarded_directory: Path) -> Iterator[str]:
    with served(stack, guarded_directory, STREAMS_WEB_NAMES="dlq.example", **TOKENS) as found:
        yield found


def test_with_a_token_nobody_sees_anything_without_it(
    guarded: str, letters: Letters, open_page: Callable[..., Page]
) -> None:
    letters.put_many("of-admins", 1)
    page = open_page(viewport=PHONE, is_mobile=True, color_scheme="light")
    page.goto(f"{guarded}/")
    assert page.url.endswith("/login")
    fits(page, "phone-login")
    page.get_by_label("Token").fill("wrong-token")
    follow(page.get_by_role("button", name="Sign in"))
    assert "This is no token of this page." in page.locator("main").inner_text()
    page.get_by_label("Token").fill("wrong-token")
    follow(page.get_by_role("button", name="Sign in"))
    seen(page, "phone-login-wrong")
    time.sleep(1.1)
    signed_in(page, guarded, "everything")
    assert "dead letters" in page.locator("h1").inner_text()
    page.goto(f"{guarded}/discard?device=of-admins-0")
    act(page, "Discard", "robin", "with a token")
    assert "1 dead letter of gps.positions.v1.dlq discarded" == page.locator("h1").inner_text()
    fits(page, "phone-signed-in")
    follow(page.get_by_role("button", name="Sign out"))
    assert page.url.endswith("/login")
    page.goto(f"{guarded}/")
    assert page.url.endswith("/login")
    assert 401 == answer(f"{guarded}/discard", {"by": "x", "why": "y"})[0]
    bearer = f"Bearer {token_of('everything')}"
    assert 200 == answer(f"{guarded}/", Authorization=bearer)[0]
    assert 200 == answer(f"{guarded}/", Authorization=bearer, Host="dlq.example", X_Forwarded_For="10.0.0.1")[0]


def test_reading_replaying_and_revealing_are_rights_of_their_own(
    guarded: str, stack: Stack, letters: Letters, open_page: Callable[..., Page]
) -> None:
    letters.put_private(stack, "private-2")
    form = {"by": "x", "why": "y", "device": "private-2"}
    buttons, allowed = {}, {}
    for right in ("read", "replay", "reveal"):
        page = open_page()
        signed_in(page, guarded, right)
        page.goto(f"{guarded}/?device=private-2")
        follow(page.locator("a.id").first)
        shown = page.url
        seen(page, f"show-as-{right}")
        buttons[right] = (page.get_by_role("link", name="Replay …").count(), page.locator("details.reveal").count())
        bearer = f"Bearer {token_of(right)}"
        paths = (f"{guarded}/replay?device=private-2", f"{guarded}/discard?device=private-2")
        allowed[right] = [answer(url, Authorization=bearer)[0] for url in paths]
        if right != "replay":
            allowed[right] += [answer(url, form, Authorization=bearer)[0] for url in paths]
        allowed[right].append(answer(f"{shown}/reveal", form, Authorization=bearer)[0])
    assert {"read": (0, 0), "replay": (1, 0), "reveal": (0, 1)} == buttons
    assert {"read": [403] * 5, "replay": [200, 200, 403], "reveal": [403] * 4 + [200]} == allowed


def test_wrong_tokens_are_slowed_and_logged(guarded: str, guarded_directory: Path) -> None:
    wrong, right = "Bearer a-wrong-token-of-some-length", f"Bearer {token_of('everything')}"
    far = partial(answer, X_Forwarded_For="10.9.9.9")  # as a proxy on this machine says
    begun = time.monotonic()
    statuses: list[int] = []
    while statuses.count(401) < 5:
        statuses.append(far(f"{guarded}/", Authorization=wrong)[0])
        time.sleep(0.1)
    assert time.monotonic() - begun >= 1 + 1 + 2 + 4, "the pauses before the fifth"
    assert {401, 429} == set(statuses)
    status, text = far(f"{guarded}/", Authorization=right)
    assert (429, True) == (status, "try again" in text), "a right one would be found just as fast"
    assert 429 == far(f"{guarded}/login", {"token": token_of("everything")})[0]
    assert 200 == answer(f"{guarded}/", Authorization=right)[0], "others do not wait"
    wait_until(lambda: far(f"{guarded}/", Authorization=right)[0] == 200, "the pause is over")
    said = [json.loads(line) for line in (guarded_directory / "monitor.log").read_text().splitlines()]
    clients = [line["client"] for line in said if "wrong token" in line["event"]]
    assert 5 == clients.count("10.9.9.9")
    assert "a-wrong-token" not in json.dumps(said)


def test_a_server_that_others_reach_shows_nothing_without_a_token(stack: Stack, tmp_path: Path) -> None:
    with served(stack, tmp_path, STREAMS_WEB_HOST="0.0.0.0") as address:  # noqa: S104 - what is tested
        for method in (None, {"by": "x", "why": "y"}):
            status, text = answer(f"{address}/discard", method)
            assert (403, True) == (status, "STREAMS_ADMIN_TOKEN" in text)
