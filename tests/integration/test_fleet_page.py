"""The fleet page in a browser, as the monitor serves it, over topics that a worker writes."""

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from streams.local.stack import Stack
from tests.integration.monitors import Monitor, monitor_over
from tests.integration.workers import Traffic, Worker, fresh_world, rough_shape, workers
from tests.left_out import chromium

pytestmark = [pytest.mark.kafka, pytest.mark.chromium, pytest.mark.timeout(240)]

WIDE: Any = {"width": 1_400, "height": 900}
PHONE: Any = {"width": 390, "height": 844}
SHOWN = "() => /^[1-9][0-9,]* vehicles/.test(document.getElementById('state').textContent)"


def token_of(right: str) -> str:
    return f"a-token-for-{right}-of-some-length"


@pytest.fixture(scope="module")
def worker(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker that keeps up with traffic."""
    fresh_world(stack)
    with (
        workers(stack, tmp_path_factory.mktemp("fleet"), "f") as (running,),
        Traffic(stack, rough_shape(stack), seed=5, records_per_s=200),
    ):
        running.start({}).wait_ready()
        yield running


@pytest.fixture(scope="module")
def monitor(stack: Stack, worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitor]:
    with monitor_over(stack, worker, tmp_path_factory.mktemp("monitor")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def page_of(browser: Browser, monitor: Monitor, others: tuple[str, ...] = (), **options: Any) -> Iterator[Page]:
    """The page with vehicles on it; fails on an error in the browser, and on a request to anybody but `others`."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(60_000)
    errors: list[str] = []
    hosts: set[str] = set()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: hosts.add(urllib.parse.urlsplit(request.url).netloc))
    page.goto(f"{monitor.url}/fleet/")
    page.wait_for_function(SHOWN)
    yield page
    assert [] == errors
    assert {f"127.0.0.1:{monitor.port}", *others} == hosts - {""}, "everything comes from the monitor"
    context.close()


def test_vehicles_are_found_chosen_and_shown_with_what_is_known_of_them(browser: Browser, monitor: Monitor) -> None:
    with page_of(browser, monitor, viewport=WIDE) as page:
        page.wait_for_function("() => fleetFigures.pictures > 2 && fleetFigures.positions > 0")
        page.wait_for_selector("#list tbody tr")
        name = page.locator("#list tbody button").first.inner_text()
        page.keyboard.press("/")
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        page.wait_for_selector("#panel:not([hidden]) dl.facts")
        assert name == page.inner_text("#panel-title")
        assert "km" in page.inner_text("#panel dl.facts")
        page.wait_for_selector("#panel details")
        page.locator("#panel summary").first.click()
        assert f'"device_id": "{name}"' in page.locator("#panel pre").first.inner_text()
        page.wait_for_function("name => document.getElementById('said').textContent.startsWith(name)", arg=name)
        assert name == urllib.parse.unquote(urllib.parse.urlsplit(page.url).fragment)
    metrics = monitor.get("/metrics")[1]
    assert 'streams_fleet_records_total{topic="gps.positions.v1.clean"}' in metrics


def test_everything_can_be_done_by_keyboard(browser: Browser, monitor: Monitor) -> None:
    with page_of(browser, monitor, viewport=WIDE) as page:
        page.wait_for_selector("#list tbody tr")
        page.keyboard.press("n")
        page.wait_for_selector("#panel:not([hidden])")
        first = page.inner_text("#panel-title")
        page.keyboard.press("n")
        page.wait_for_function("first => document.getElementById('panel-title').textContent !== first", arg=first)
        page.keyboard.press("p")
        assert first == page.inner_text("#panel-title")
        page.keyboard.press("Escape")
        assert page.is_hidden("#panel")
        before = page.inner_text("#scale")
        for _ in range(6):
            page.keyboard.press("+")
        page.wait_for_function("before => document.getElementById('scale').textContent !== before", arg=before)
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("0")
        page.keyboard.press(" ")
        page.wait_for_function("() => document.body.classList.contains('past')")
        page.keyboard.press("l")
        page.wait_for_function("() => !document.body.classList.contains('past')")
        theme = page.evaluate("document.documentElement.dataset.theme")
        page.keyboard.press("t")
        assert theme != page.evaluate("document.documentElement.dataset.theme")


def test_a_state_is_hidden_by_its_count(browser: Browser, monitor: Monitor) -> None:
    with page_of(browser, monitor, viewport=WIDE) as page:
        page.wait_for_selector("#list tbody .v")
        state = page.locator("#list tbody .v").first.inner_text()
        button = f"#counts button:has(#{state})"
        page.click(button)
        page.wait_for_function("state => !document.querySelector(`#list tbody .v.${state}`)", arg=state)
        assert "false" == page.get_attribute(button, "aria-pressed")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_the_lists_are_pulled_up_and_nothing_is_wider_than_the_screen(
    browser: Browser, monitor: Monitor, scheme: Any
) -> None:
    with page_of(browser, monitor, viewport=PHONE, color_scheme=scheme, has_touch=True) as page:
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (scheme == "dark") == ("13, 17, 23" in ground)
        assert page.is_hidden("#lists")
        page.click("#sheet")
        page.wait_for_selector("#list tbody tr")
        page.locator("#list tbody button").first.click()
        page.wait_for_selector("#panel:not([hidden]) dl.facts")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_without_the_right_to_see_personal_data_there_are_vehicles_and_no_places(
    browser: Browser, stack: Stack, worker: Worker, tmp_path: Path
) -> None:
    tokens = {f"STREAMS_REVIEW_TOKEN_{right}": token_of(right) for right in ("READ", "REVEAL")}
    with monitor_over(stack, worker, tmp_path, tokens) as monitor:
        assert 401 == monitor.get("/fleet/api/stream")[0]
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{monitor.url}/fleet/")
        page.fill("input[name=token]", token_of("READ"))
        page.click("main button")
        page.wait_for_function(SHOWN)
        assert "Positions are personal data" in page.inner_text("#notices")
        assert page.is_hidden("#replay")
        page.wait_for_selector("#list tbody tr")
        page.locator("#list tbody button").first.click()
        page.wait_for_selector("#panel details")
        assert "position not shown" in page.inner_text("#panel-where")
        page.locator("#panel summary").first.click()
        assert '"latitude": "•••"' in page.locator("#panel pre").first.inner_text()
        page.close()
        assert ask(monitor, "past?from=0&to=1&epoch=1", token_of("READ"))[0] == 403


def ask(monitor: Monitor, path: str, token: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{monitor.url}/fleet/api/{path}", headers=headers)  # noqa: S310 - our own
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - our own
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


class Tiles(BaseHTTPRequestHandler):
    """A server of tiles; each is a small picture."""

    asked: ClassVar[list[str]]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = b'<svg xmlns="http://www.w3.org/2000/svg" width="256" height="256"/>'
        self.send_response(200)
        self.send_header("Content-Type", "image/svg+xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_tiles_of_ones_own_are_below_the_vehicles(
    browser: Browser, stack: Stack, worker: Worker, tmp_path: Path
) -> None:
    class Handler(Tiles):
        asked: ClassVar[list[str]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own = f"127.0.0.1:{server.server_port}"
        settings = {
            "STREAMS_FLEET_TILES_URL": f"http://{own}/{{z}}/{{x}}/{{y}}.svg",
            "STREAMS_FLEET_TILES_ATTRIBUTION": "Tiles of ours",
        }
        with monitor_over(stack, worker, tmp_path, settings) as monitor, page_of(browser, monitor, (own,)) as page:
            page.wait_for_function("() => document.getElementById('credit').textContent === 'Tiles of ours'")
            page.wait_for_timeout(500)
        server.shutdown()
    assert Handler.asked
