"""Targets of messages: an HTTP endpoint, one that accepts Slack's messages, a mail server.

Addresses may hold secrets, also in their paths (Slack's do): logs and errors show only their scheme and host.
"""

import asyncio
import smtplib
import ssl
import time
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

import aiohttp

from streams.errors import StreamsError, UsageError
from streams.monitor.notify.ledger import Message
from streams.monitor.notify.words import Origin, document, lines, subject
from streams.settings import Settings

TIMEOUT_S: Final = 15.0
"""Time limit of one message, from the connection to the answer."""
_SLACK_ESCAPED: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_PORTS: Final = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}


class Target(Protocol):
    """A target of messages."""

    name: str
    """Its kind: `webhook`, `slack`, `email`."""
    place: str
    """Its address without secrets, for logs."""

    def send(self, message: Message, origin: Origin) -> None:
        """Send the message.

        Raises:
            StreamsError: it is not taken; it may be, later.

        """
        ...


def targets_of(settings: Settings) -> list[Target]:
    """The configured targets.

    Raises:
        UsageError: an address is not usable, or something that belongs to it is missing.

    """
    found: list[Target] = []
    if settings.streams_notify_webhook_url is not None:
        found.append(Webhook(settings))
    if settings.streams_notify_slack_url is not None:
        found.append(Slack(settings))
    if settings.streams_notify_smtp_url is not None:
        found.append(Mail(settings))
    return found


class Webhook:
    """Posts the document that Alertmanager would post."""

    name = "webhook"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.place = _place(_address(settings, "STREAMS_NOTIFY_WEBHOOK_URL", {"http", "https"}))

    def send(self, message: Message, origin: Origin) -> None:
        """Post it; any answer of 2xx takes it."""
        token = self._settings.secret("STREAMS_NOTIFY_WEBHOOK_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = self._settings.secret("STREAMS_NOTIFY_WEBHOOK_URL") or ""
        _post(url, self.place, document(message, origin, time.time_ns() // 1_000_000), headers)


class Slack:
    """Posts a text to an incoming webhook of Slack, or of what takes the same (Mattermost, Rocket.Chat, Discord)."""

    name = "slack"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.place = _place(_address(settings, "STREAMS_NOTIFY_SLACK_URL", {"http", "https"}))

    def send(self, message: Message, origin: Origin) -> None:
        """Post the message."""
        title = f"*{subject(message, origin).translate(_SLACK_ESCAPED)}*"
        text = [line.translate(_SLACK_ESCAPED) for line in lines(message, origin)]
        url = self._settings.secret("STREAMS_NOTIFY_SLACK_URL") or ""
        _post(url, self.place, {"text": "\n".join([title, *text])}, {})


class Mail:
    """Sends an e-mail through a server: `smtp://`, `smtp+starttls://` or `smtps://user:password@host:port`."""

    name = "email"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.place = _place(_address(settings, "STREAMS_NOTIFY_SMTP_URL", set(_PORTS)))
        self._to = [one.strip() for one in settings.streams_notify_email_to.split(",") if one.strip()]
        self._from = settings.streams_notify_email_from.strip()
        for name, addresses in (("TO", self._to), ("FROM", [self._from])):
            if not addresses or not all("@" in one and one.isprintable() and " " not in one for one in addresses):
                raise UsageError(f"STREAMS_NOTIFY_EMAIL_{name}: addresses such as oncall@example.org, with commas")

    def send(self, message: Message, origin: Origin) -> None:
        """Send one e-mail to all receivers."""
        url = _address(self._settings, "STREAMS_NOTIFY_SMTP_URL", set(_PORTS))
        try:
            with self._connected(url) as server:
                if url.username:
                    server.login(unquote(url.username), unquote(url.password or ""))
                refused = server.send_message(self._mail(message, origin))
        except smtplib.SMTPResponseException as error:
            raise StreamsError(f"{self.place} answers {error.smtp_code}") from None
        except (smtplib.SMTPException, OSError) as error:  # texts of these may repeat what was sent
            raise StreamsError(f"{self.place} does not accept it: {type(error).__name__}") from None
        if refused:
            raise StreamsError(f"{self.place} refuses {len(refused)} of {len(self._to)} receivers")

    def _connected(self, url: SplitResult) -> smtplib.SMTP:
        host, port = url.hostname or "", url.port or _PORTS[url.scheme]
        context = ssl.create_default_context()
        if url.scheme == "smtps":
            return smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_S, context=context)
        server = smtplib.SMTP(host, port, timeout=TIMEOUT_S)
        if url.scheme == "smtp+starttls":
            try:
                server.starttls(context=context)
            except BaseException:
                server.close()
                raise
        return server

    def _mail(self, message: Message, origin: Origin) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = subject(message, origin)
        mail["From"], mail["To"] = self._from, ", ".join(self._to)
        mail["Date"], mail["Message-ID"] = formatdate(), make_msgid(domain=self._from.rpartition("@")[2])
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content("\n".join(lines(message, origin)) + "\n")
        return mail


def _address(settings: Settings, name: str, schemes: set[str]) -> SplitResult:
    try:
        url = urlsplit(settings.secret(name) or "")
        is_usable = url.scheme in schemes and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        is_usable = False
    if not is_usable:
        raise UsageError(f"{name}: {' or '.join(f'{scheme}://' for scheme in sorted(schemes))}host:port and a path")
    return url


def _place(url: SplitResult) -> str:
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    return f"{url.scheme}://{host}{f':{url.port}' if url.port else ''}"


def _post(url: str, place: str, content: dict[str, Any], headers: dict[str, str]) -> None:
    try:
        status = asyncio.run(_posted(url, content, headers))
    except TimeoutError:
        raise StreamsError(f"{place} does not answer within {TIMEOUT_S:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:  # texts of these name the whole address
        raise StreamsError(f"{place} does not answer: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise StreamsError(f"{place} answers {status}")


async def _posted(url: str, content: dict[str, Any], headers: dict[str, str]) -> int:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (
        aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.post(url, json=content, headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status
