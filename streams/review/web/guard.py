"""Who may use the review page, and that it is really they who press a button.

With a token (`STREAMS_ADMIN_TOKEN`): whoever has shown it holds a signed cookie for some hours, or sends it as a
bearer. Without: only this machine, by its own name; a name that merely resolves to it (DNS rebinding) and whatever came
through a proxy are refused. Every change is a POST with a value that only our own pages know, from our own origin.
"""

import hashlib
import hmac
import ipaddress
import secrets
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

SESSION_COOKIE: Final = "streams_dlq_session"
SESSION_S: Final = 8 * 3_600
FORM_BYTES_MAX: Final = 65_536
FORM_FIELDS_MAX: Final = 100
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """The request is not served; `login` when showing the token would help."""

    status: int
    why: str
    login: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who may use the page."""

    cookie: str
    """To be set when it is new; empty with a bearer token, which needs none."""
    csrf: str
    is_new: bool


class Guard:
    """Decides about requests. `token` None: this machine only."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self._secret = secrets.token_bytes(32)

    @property
    def has_token(self) -> bool:
        """Whether there is a token to be shown."""
        return self._token is not None

    def admit(self, request: Request) -> Session:
        """Who asks.

        Raises:
            Refused: nobody who may.

        """
        if self._token is None:
            _check_local(request)
        elif self._bears_token(request):
            return Session("", "", is_new=False)
        cookie = request.cookies.get(SESSION_COOKIE, "")
        if self._is_ours(cookie):
            return Session(cookie, self._sign(f"csrf:{cookie}"), is_new=False)
        if self._token is not None:
            raise Refused(401, "show the token first", login=True)
        return self.begin()

    def begin(self) -> Session:
        """A new session."""
        body = f"{secrets.token_hex(16)}.{int(time.time()) + SESSION_S}"
        cookie = f"{body}.{self._sign(f'session:{body}')}"
        return Session(cookie, self._sign(f"csrf:{cookie}"), is_new=True)

    def is_token(self, shown: str) -> bool:
        """Whether what was shown is the token."""
        return self._token is not None and hmac.compare_digest(shown.encode(), self._token.encode())

    def check_change(self, request: Request, session: Session, form: dict[str, str]) -> None:
        """That a change was asked for on one of our pages.

        Raises:
            Refused: it was not, or it cannot be told.

        """
        check_origin(request)
        if not session.cookie:
            return  # a bearer token: no browser sends it by itself
        if session.is_new or not hmac.compare_digest(form.get("csrf", ""), session.csrf):
            raise Refused(403, "this form is not from this page, or too old: go back, reload and try again")

    def keep(self, session: Session, request: Request, response: Response) -> None:
        """Set the cookie of a new session."""
        if session.is_new and session.cookie:
            response.set_cookie(
                SESSION_COOKIE, session.cookie, max_age=SESSION_S, httponly=True, samesite="strict",
                path=request.scope.get("root_path") or "/", secure=request.url.scheme == "https",
            )  # fmt: skip

    def _bears_token(self, request: Request) -> bool:
        kind, _, shown = request.headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self.is_token(shown.strip())

    def _is_ours(self, cookie: str) -> bool:
        body, _, signature = cookie.rpartition(".")
        _, _, until = body.partition(".")
        signed = hmac.compare_digest(signature, self._sign(f"session:{body}"))
        return signed and until.isascii() and until.isdigit() and int(until) > time.time()

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


async def read_form(request: Request) -> dict[str, str]:
    """Fields of an urlencoded form, the last value of each.

    Raises:
        Refused: it is larger than any of ours, or not a form.

    """
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > FORM_BYTES_MAX:
                raise Refused(413, "the form is too large")
    except ClientDisconnect:
        raise Refused(400, "the form did not arrive") from None
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        raise Refused(400, "this is not a form") from None
    return {name: values[-1] for name, values in fields.items()}


def check_origin(request: Request) -> None:
    """That a POST comes from our own pages, as far as the browser says.

    Raises:
        Refused: it comes from elsewhere.

    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site not in {None, "same-origin", "none"}:
        raise Refused(403, "this was asked for by another site")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Refused(403, "this was asked for by another site")


def _check_local(request: Request) -> None:
    where = "the review page serves this machine only: set STREAMS_ADMIN_TOKEN to use it from elsewhere"
    if request.client is None or not _is_loopback(request.client.host):
        raise Refused(403, where)
    if any(name in request.headers for name in _FORWARDED):
        raise Refused(403, f"{where} (a proxy has forwarded this request)")
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if host != "localhost" and not _is_loopback(host):
        raise Refused(403, f"{where} (it was asked for as {host[:100]!r})")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
