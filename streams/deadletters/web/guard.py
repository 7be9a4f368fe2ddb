"""Access to the review page, and protection of its forms against requests from other sites.

With a token (`STREAMS_ADMIN_TOKEN`, `STREAMS_REVIEW_TOKEN_READ`, `_REPLAY`, `_REVEAL`): whoever has shown one holds a
signed cookie with its rights for some hours, or sends the token as a bearer. Without any: this machine only, of a
server that listens on loopback, by a name of this machine; a foreign name that resolves to it (DNS rebinding) and
whatever came through a proxy are refused. Every change is a POST with a value that only our own pages know, from our
own origin.
"""

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import structlog
from starlette.requests import Request
from starlette.responses import Response

from streams.deadletters.web.refused import Refused
from streams.deadletters.web.tokens import EVERY_RIGHT, HOLD_S, Failures, Right, Rights, Tokens
from streams.hosts import host_name, is_loopback, proxy_header

log = structlog.get_logger(__name__)

SESSION_COOKIE: Final = "streams_dlq_session"
"""The page's port is appended, since cookies of a host are sent to all its ports."""
SESSION_S: Final = 8 * 3_600
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: a browser would then send `Origin: null` with the forms, and they would be refused.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_ANOTHER_SITE: Final = "this was asked for by another site"
_MAY_NOT: Final = {
    Right.READ: "your token does not permit reading",
    Right.REPLAY: "your token permits no replaying or discarding: sign in with one that does",
    Right.REVEAL: "your token does not permit to see personal data: sign in with one that does",
}


@dataclass(frozen=True, slots=True)
class Session:
    """A user of the page."""

    cookie: str
    """Cookie to set if it is new; empty with a bearer token, which needs none."""
    csrf: str
    is_new: bool
    rights: Rights = EVERY_RIGHT
    is_signed_in: bool = False
    """Whether it began with a token entered on the page, so that signing out is possible."""

    @property
    def may_replay(self) -> bool:
        """Whether replaying and discarding are permitted."""
        return Right.REPLAY in self.rights

    @property
    def may_reveal(self) -> bool:
        """Whether personal data may be seen."""
        return Right.REVEAL in self.rights


class Guard:
    """Decides about requests. No `tokens`: only this machine is admitted."""

    def __init__(
        self,
        tokens: Tokens,
        *,
        bound_to: str,
        clock: Callable[[], float] = time.time,
        what: str = "the review page",
    ) -> None:
        """`bound_to`: address that the server listens on. `what` is guarded, in words."""
        self._tokens = tokens
        self._what = what
        self._bound_to = bound_to
        self._is_local = is_loopback(bound_to)
        self._clock = clock
        self._failures = Failures()
        self._secret = secrets.token_bytes(32)

    @property
    def has_token(self) -> bool:
        """Whether tokens are configured."""
        return bool(self._tokens)

    def admit(self, request: Request) -> Session:
        """The session of a request.

        Raises:
            Refused: nobody who may.

        """
        if not self._tokens:
            self._check_local(request)
        else:
            kind, _, _ = request.headers.get("authorization", "").partition(" ")
            if kind.lower() == "bearer":
                return Session("", "", is_new=False, rights=self.rights(request))
        session = self._session_of(request.cookies.get(_cookie_name(request), ""))
        if session is not None:
            return session
        if self._tokens:
            raise Refused(HTTPStatus.UNAUTHORIZED, "show a token first", login=True)
        return self.begin(EVERY_RIGHT)

    def rights(self, request: Request) -> Rights:
        """Rights of a program without a session: by its bearer token; without tokens, from this machine.

        Raises:
            Refused: nothing.

        """
        if not self._tokens:
            self._check_local(request)
            return EVERY_RIGHT
        kind, _, shown = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise Refused(HTTPStatus.UNAUTHORIZED, "send a token: Authorization: Bearer ...")
        return self.check_token(request, shown.strip().encode("latin-1"))  # bytes of a header come as latin-1

    def rights_unless_refused(self, request: Request) -> Rights | None:
        """What `rights` returns; None where it would refuse, and a wrong token is not counted: `rights` is to be asked.

        Not for an address that `is_held`.
        """
        if self._tokens:
            kind, _, shown = request.headers.get("authorization", "").partition(" ")
            return self._tokens.rights_of(shown.strip().encode("latin-1")) if kind.lower() == "bearer" else None
        try:
            self._check_local(request)
        except Refused:
            return None
        return EVERY_RIGHT

    def is_held(self, address: str) -> bool:
        """Whether no token from there is looked at now, since wrong ones have come."""
        return bool(self._failures) and self._failures.wait_s(address, self._clock()) > 0

    def check_token(self, request: Request, shown: bytes) -> Rights:
        """Rights of a token that was entered.

        Raises:
            Refused: it is none, or wrong ones have come from there a moment ago, so it was not looked at.

        """
        address = request.client.host if request.client is not None else "?"
        wait_s = math.ceil(self._failures.wait_s(address, self._clock()))
        if wait_s:
            why = f"wrong tokens have come from your address: try again in {wait_s} s"
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, why, retry_s=wait_s)
        rights = self._tokens.rights_of(shown)
        if rights is None:
            failures = self._failures.add(address, self._clock())
            log.warning("a wrong token was shown", where=self._what, client=address, failures=failures)
            raise Refused(HTTPStatus.UNAUTHORIZED, "this is no token of this page", pause_s=HOLD_S)
        return rights

    def begin(self, rights: Rights) -> Session:
        """Begin a new session."""
        names = "-".join(sorted(right.value for right in rights))
        body = f"{secrets.token_hex(16)}.{names}.{int(self._clock()) + SESSION_S}"
        cookie = f"{body}.{self._sign(f'session:{body}')}"
        return self._session(cookie, rights, is_new=True)

    def demand(self, session: Session, right: Right) -> None:
        """Require that a session has a right.

        Raises:
            Refused: it has not.

        """
        require(session.rights, right)

    def check_change(self, request: Request, session: Session, form: dict[str, str]) -> None:
        """Require that a change was requested on one of our pages.

        Raises:
            Refused: it was not, or it cannot be told.

        """
        check_origin(request)
        if not session.cookie:
            return  # a bearer token: no browser sends it by itself
        if session.is_new or not _same(form.get("csrf", ""), session.csrf):
            raise Refused(403, "this form is not from this page, or too old: go back, reload and try again")

    def keep(self, session: Session, request: Request, response: Response) -> None:
        """Set the cookie of a new session."""
        if session.is_new and session.cookie:
            response.set_cookie(
                _cookie_name(request), session.cookie, max_age=SESSION_S, httponly=True, samesite="strict",
                path=request.scope.get("root_path") or "/", secure=request.url.scheme == "https",
            )  # fmt: skip

    def end(self, request: Request, response: Response) -> None:
        """Delete the browser's session cookie."""
        response.delete_cookie(
            _cookie_name(request), httponly=True, samesite="strict",
            path=request.scope.get("root_path") or "/", secure=request.url.scheme == "https",
        )  # fmt: skip

    def _session_of(self, cookie: str) -> Session | None:
        """The session in a cookie that we have signed, if it has not expired."""
        body, _, signature = cookie.rpartition(".")
        if not _same(signature, self._sign(f"session:{body}")):
            return None
        _, names, until = body.split(".")
        if int(until) <= self._clock():
            return None
        rights = frozenset(map(Right, names.split("-")))
        return self._session(cookie, rights, is_new=False)

    def _session(self, cookie: str, rights: Rights, *, is_new: bool) -> Session:
        return Session(cookie, self._sign(f"csrf:{cookie}"), is_new, rights, is_signed_in=self.has_token)

    def _check_local(self, request: Request) -> None:
        where = f"without a token {self._what} serves this machine only: set STREAMS_ADMIN_TOKEN to use it elsewhere"
        if not self._is_local:
            raise Refused(403, f"{where} (the server listens on {self._bound_to}, which others can reach)")
        if request.client is None or not is_loopback(request.client.host):
            raise Refused(403, where)
        header = proxy_header(request.headers)
        if header is not None:
            raise Refused(403, f"{where} (a proxy has forwarded this request: {header})")
        asked = request.headers.get("host", "")
        host = host_name(asked)
        if host is None or not is_loopback(host):
            raise Refused(403, f"{where} (it was asked for as {asked[:100]!r})")

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def require(rights: Rights, right: Right) -> None:
    """Require a right.

    Raises:
        Refused: it is not.

    """
    if right not in rights:
        raise Refused(HTTPStatus.FORBIDDEN, _MAY_NOT[right])


def check_origin(request: Request) -> None:
    """Require that a POST comes from our own pages, as far as the browser says.

    Raises:
        Refused: it comes from elsewhere.

    """
    site = request.headers.get("sec-fetch-site")
    if site not in {None, "same-origin", "none"}:
        raise Refused(403, _ANOTHER_SITE)
    origin = request.headers.get("origin")
    if origin is None or (origin == "null" and site == "same-origin"):
        return  # `null` from our own page: something before us has set `Referrer-Policy: no-referrer`
    try:
        is_ours = urlsplit(origin).netloc == request.headers.get("host")
    except ValueError:
        is_ours = False
    if not is_ours:
        raise Refused(403, _ANOTHER_SITE)


def _cookie_name(request: Request) -> str:
    _, _, port = request.headers.get("host", "").rpartition(":")
    return f"{SESSION_COOKIE}_{port}" if re.fullmatch("[0-9]{1,5}", port) else SESSION_COOKIE


def _same(one: str, other: str) -> bool:
    """Compare two texts of any characters in constant time."""
    return hmac.compare_digest(one.encode(errors="surrogatepass"), other.encode(errors="surrogatepass"))
