"""Messages about what is wrong: when which one is due, their words, and real HTTP and mail servers that take them."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope

from streams.errors import StreamsError, UsageError
from streams.local.ports import free_port
from streams.monitor.freshness import FreshnessTracker, Source
from streams.monitor.notify.ledger import Ledger, Message
from streams.monitor.notify.notifier import Notifier
from streams.monitor.notify.problems import Problem, problems_of
from streams.monitor.notify.targets import targets_of
from streams.monitor.notify.words import LINES_MAX, Origin, lines, subject
from streams.resilience.retry import Backoff
from streams.settings import Settings, load_settings
from tests.integration.workers import wait_until
from tests.unit.test_monitor_health import WELL
from tests.unit.test_scale_book import looks, snapshot_of

STOP = Problem("group a", "STOP", "a", "nobody reads t-0", "no-progress", "start a worker")
LATE = Problem("group b", "WARN", "b", "t-1 falls behind", "lag-growing", "add a worker", is_warning=True)
ORIGIN = Origin("east", "https://monitor.example")
SECRET = "s3cret-token"  # noqa: S105 - a test's


def by_key(*problems: Problem) -> dict[str, Problem]:
    return {one.key: one for one in problems}


class Told:
    """A ledger, and what it has had sent."""

    def __init__(self) -> None:
        self._ledger = Ledger(wait_s=30.0, repeat_s=3_600.0)

    def at(self, now_s: float, *problems: Problem, is_up: bool = True) -> Message | None:
        message = self._ledger.due(by_key(*problems), now_s)
        if message is not None and is_up:
            self._ledger.sent(message, now_s)
        return message


# --- when -------------------------------------------------------------------------------------------------------------


def test_what_does_not_last_is_not_told() -> None:
    told = Told()
    assert told.at(0, STOP) is None
    assert told.at(25) is None
    assert told.at(50, STOP) is None
    assert told.at(79) is None


def test_what_began_meanwhile_is_in_the_same_message() -> None:
    told = Told()
    told.at(0, STOP)
    told.at(29, STOP, LATE)
    message = told.at(30, STOP, LATE)

    assert message is not None
    assert (STOP, LATE) == message.problems
    assert {"group a", "group b"} == message.news
    assert told.at(60, STOP, LATE) is None


def test_another_verdict_is_told_and_what_goes_on_is_in_the_message_too() -> None:
    told = Told()
    told.at(0, STOP, LATE)
    told.at(30, STOP, LATE)
    worse = replace(LATE, state="STALL", is_warning=False)
    assert told.at(100, STOP, worse) is None
    message = told.at(130, STOP, worse)

    assert message is not None
    assert {"group b"} == message.news
    assert (STOP, worse) == message.problems
    changed_words = replace(STOP, text="nobody reads t-0, for longer")
    assert told.at(170, changed_words, worse) is None


def test_the_end_is_told_once_it_lasts() -> None:
    told = Told()
    told.at(0, STOP)
    told.at(30, STOP)
    assert told.at(40) is None
    assert told.at(45, STOP) is None
    assert told.at(70) is None
    message = told.at(75)

    assert message is not None
    assert ((), (STOP,), True) == (message.problems, message.resolved, message.is_over)
    assert told.at(200) is None


def test_what_goes_on_is_told_again_after_the_repeat_interval() -> None:
    told = Told()
    told.at(0, STOP)
    told.at(30, STOP)
    assert told.at(3_629, STOP) is None
    message = told.at(3_630, STOP)

    assert message is not None
    assert (frozenset(), (STOP,)) == (message.news, message.problems)
    assert told.at(3_700, STOP) is None


def test_a_target_that_was_down_is_told_what_is_the_case_when_it_is_up() -> None:
    told = Told()
    told.at(0, STOP)
    assert told.at(30, STOP, is_up=False) is not None
    assert told.at(60, STOP, LATE, is_up=False) is not None
    message = told.at(90, LATE)

    assert message is not None
    assert ((LATE,), ()) == (message.problems, message.resolved)


# --- what -------------------------------------------------------------------------------------------------------------


def test_problems_are_those_of_the_snapshot() -> None:
    tracker = FreshnessTracker([Source("fed", None, 60.0), Source("new", None, 60.0)], now_ms=0)
    tracker.feed("fed")
    behind = looks()[-1]
    snapshot = replace(snapshot_of(behind), freshness=tuple(tracker.judge(600_000)))
    found = problems_of(snapshot, WELL)

    assert {"group g", "source fed"} == found.keys(), "a source that waits for its first event is no problem"
    assert ("SILENT", "source-silent") == (found["source fed"].state, found["source fed"].runbook)
    assert found["group g"].text.startswith("t-0: ")
    assert found["group g"].advice


def test_a_blind_monitor_says_so_and_nothing_else() -> None:
    blind = replace(WELL, age_s=1_000.0, failure="no broker")
    found = problems_of(snapshot_of(looks()[-1]), blind)

    assert ["BLIND"] == [one.state for one in found.values()]
    assert {} == problems_of(None, replace(WELL, age_s=None, failure=None)), "its first round is under way"
    assert "BLIND" == problems_of(None, replace(WELL, age_s=None, failure="no broker"))["monitor"].state


def test_words_say_what_is_new_what_to_do_and_where_to_look() -> None:
    message = Message((STOP, LATE), (replace(STOP, key="group c", subject="c"),), frozenset({"group a"}))

    assert "[east] STOP a and 1 more" == subject(message, ORIGIN)
    text = lines(message, ORIGIN)
    assert "new: STOP a: nobody reads t-0" == text[0]
    assert "  -> start a worker | https://monitor.example/runbooks/no-progress" == text[1]
    assert "WARN b: t-1 falls behind" == text[2]
    assert "resolved: STOP c" in text
    many = tuple(replace(STOP, key=str(number)) for number in range(100))
    assert f"and {100 - LINES_MAX} more" in lines(Message(many, (), frozenset()), ORIGIN)
    assert "[east] still: STOP a and 99 more" == subject(Message(many, (), frozenset()), ORIGIN)
    assert "\n" not in subject(Message((replace(STOP, subject="a\r\nBcc: x@y"),), (), frozenset()), ORIGIN)


# --- real servers -----------------------------------------------------------------------------------------------------


@dataclass
class Endpoint:
    """An HTTP server that takes messages, or refuses them."""

    url: str
    status: int = 200
    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if told.status < 300:
                told.bodies.append(json.loads(body))
                told.headers.append(dict(self.headers))
            self.send_response(told.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = Endpoint(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(name="settings")
def fixture_settings(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    def made(**values: str) -> Settings:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return made


def test_a_webhook_gets_what_alertmanager_would_send(settings: Callable[..., Settings], tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    with endpoint() as server:
        found = settings(
            STREAMS_NOTIFY_WEBHOOK_URL=f"{server.url}/hook/{SECRET}", STREAMS_NOTIFY_WEBHOOK_TOKEN_FILE=str(token)
        )
        (target,) = targets_of(found)
        target.send(Message((STOP,), (LATE,), frozenset({"group a"})), ORIGIN)
        server.status = 503
        with pytest.raises(StreamsError, match="answers 503") as caught:
            target.send(Message((STOP,), (), frozenset()), ORIGIN)

    (body,) = server.bodies
    assert ("4", "firing") == (body["version"], body["status"])
    assert ["firing", "resolved"] == [one["status"] for one in body["alerts"]]
    assert {"alertname": "STOP", "cluster": "east", "subject": "a", "severity": "page"} == body["alerts"][0]["labels"]
    assert "https://monitor.example/runbooks/no-progress" == body["alerts"][0]["annotations"]["runbook_url"]
    assert f"Bearer {SECRET}" == server.headers[0]["Authorization"]
    shown = f"{caught.value} {target.place} {found!r} {found.masked()}"
    assert SECRET not in shown


def test_a_message_for_slack_is_a_text_without_markup_of_others(settings: Callable[..., Settings]) -> None:
    with endpoint() as server:
        (target,) = targets_of(settings(STREAMS_NOTIFY_SLACK_URL=f"{server.url}/services/{SECRET}"))
        target.send(Message((replace(STOP, text="<!channel> & co"),), (), frozenset()), ORIGIN)

    (body,) = server.bodies
    assert {"text"} == body.keys()
    assert body["text"].startswith("*[east] still: STOP a*\n")
    assert "&lt;!channel&gt; &amp; co" in body["text"]
    with pytest.raises(StreamsError, match="does not answer") as caught:
        target.send(Message((STOP,), (), frozenset()), ORIGIN)
    assert SECRET not in str(caught.value)


class Mailbox:
    """Keeps what a mail server is given."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.is_full = False

    async def handle_DATA(self, _: Any, __: Any, envelope: Envelope) -> str:  # noqa: N802 - the library's name
        if self.is_full:
            return "452 too much"
        self.mails.append(envelope)
        return "250 taken"


def test_a_mail_goes_to_all_receivers_with_the_name_and_password_of_the_address(
    settings: Callable[..., Settings],
) -> None:
    box = Mailbox()
    logins = []

    def checked(_: Any, __: Any, ___: Any, mechanism: str, login: Any) -> AuthResult:
        logins.append((mechanism, login.login, login.password))
        return AuthResult(success=True)

    port = free_port()
    server = Controller(
        box,
        hostname="127.0.0.1",
        port=port,
        authenticator=checked,
        auth_require_tls=False,
        auth_required=True,
        ready_timeout=60,
    )
    server.start()
    try:
        found = settings(
            STREAMS_NOTIFY_SMTP_URL=f"smtp://me:p%40ss{SECRET}@127.0.0.1:{port}",
            STREAMS_NOTIFY_EMAIL_FROM="monitor@example.org",
            STREAMS_NOTIFY_EMAIL_TO="a@example.org, b@example.org",
        )
        (target,) = targets_of(found)
        target.send(Message((STOP,), (), frozenset({"group a"})), ORIGIN)
        box.is_full = True
        with pytest.raises(StreamsError, match="answers 452") as caught:
            target.send(Message((STOP,), (), frozenset()), ORIGIN)
    finally:
        server.stop()

    (mail,) = box.mails
    assert ["a@example.org", "b@example.org"] == mail.rcpt_tos
    text = (mail.content or b"").decode() if isinstance(mail.content, bytes) else str(mail.content)
    assert "Subject: [east] STOP a" in text
    assert "new: STOP a: nobody reads t-0" in text
    assert (b"me", f"p@ss{SECRET}".encode()) == logins[0][1:]
    assert SECRET not in f"{caught.value} {target.place} {found!r}"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"STREAMS_NOTIFY_WEBHOOK_URL": "ftp://x"}, "STREAMS_NOTIFY_WEBHOOK_URL"),
        ({"STREAMS_NOTIFY_SLACK_URL": "no address"}, "STREAMS_NOTIFY_SLACK_URL"),
        ({"STREAMS_NOTIFY_SMTP_URL": "smtp://h"}, "STREAMS_NOTIFY_EMAIL_TO"),
        ({"STREAMS_NOTIFY_SMTP_URL": "smtp://h", "STREAMS_NOTIFY_EMAIL_TO": "a@b"}, "STREAMS_NOTIFY_EMAIL_FROM"),
    ],
)
def test_what_is_missing_is_named_at_once(
    settings: Callable[..., Settings], values: dict[str, str], names: str
) -> None:
    with pytest.raises(UsageError, match=names):
        targets_of(settings(**values))


def test_a_target_that_is_down_is_tried_again_and_delays_no_other(settings: Callable[..., Settings]) -> None:
    problems = by_key(STOP)
    with endpoint() as hook, endpoint() as slack:
        hook.status = 500
        found = settings(STREAMS_NOTIFY_WEBHOOK_URL=hook.url, STREAMS_NOTIFY_SLACK_URL=slack.url)
        notifier = Notifier(
            targets_of(found), lambda: problems, ORIGIN, wait_s=0.0, repeat_s=60.0, every_s=0.05,
            pauses=Backoff(first_s=0.05, pause_s_max=0.2),
        )  # fmt: skip
        notifier.start()
        try:
            wait_until(lambda: slack.bodies and notifier.counts["webhook"].failed > 2, "one is told", timeout_s=60)
            assert notifier.counts["webhook"].is_down
            hook.status = 200
            wait_until(lambda: len(hook.bodies) == 1, "the other is told, once", timeout_s=60)
            problems.clear()
            wait_until(lambda: len(slack.bodies) == len(hook.bodies) == 2, "that it is over", timeout_s=60)
            time.sleep(0.3)
        finally:
            notifier.stop()
    assert "resolved" == hook.bodies[1]["status"]
    assert (2, False) == (notifier.counts["webhook"].sent, notifier.counts["webhook"].is_down)
    assert "resolved: STOP a" in slack.bodies[1]["text"]
