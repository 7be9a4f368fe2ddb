"""Requests to a REST source: authorized and bounded; failures say when to try again."""

import base64
import json
import time
import zlib
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from streams import __version__
from streams.errors import StreamsError
from streams.gateway.bodies import gunzipped
from streams.masking import PERSONAL_MASK
from streams.pull.declaration import Auth, PullSource

ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
ANSWER_S_MAX: Final = 60.0
RETRY_AFTER_S_MAX: Final = 3_600.0
"""Longest pause that a source may ask for."""
SECRET_BYTES_MAX: Final = 65_536
_RENEW_S: Final = 30.0
"""A token is renewed this long before it ends."""
_TOKEN_S: Final = 300.0
"""How long a token is used whose end nobody says."""
_SHOWN: Final = 200


class FetchFailed(StreamsError):
    """A source did not answer with what was asked for; the message says why, without secrets."""

    def __init__(self, message: str, *, retry_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_s = retry_s
        """When the source says that it may be asked again; None: it says nothing."""


class RestClient:
    """Asks one source. Of one event loop; use as an asynchronous context manager."""

    def __init__(
        self, source: PullSource, *, masks_words: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        """`masks_words`: records hold personal data, which the source may quote: of refusals the status is told."""
        self._source, self._masks_words, self._clock = source, masks_words, clock
        self._token = ""
        self._token_until_s = 0.0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_S_MAX),
            headers={"User-Agent": f"logistics-streams/{__version__}", "Accept-Encoding": "gzip"},
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def fetch(self, parameters: Mapping[str, str]) -> Any:
        """The JSON document that the source answers with.

        Raises:
            FetchFailed: it does not, now.

        """
        for is_last in (False, True):
            headers = {"Accept": "application/json", **self._source.headers, **await self._authorization()}
            status, found_headers, content = await self._ask(
                "GET", self._source.url, params=dict(parameters), headers=headers
            )
            if status == HTTPStatus.UNAUTHORIZED and self._token and not is_last:
                self._token = ""  # it may have been revoked before its time
                continue
            if self._masks_words and status != HTTPStatus.OK:
                content = PERSONAL_MASK.encode()
            return _document(self._source.url, status, found_headers, content, self._clock())
        raise AssertionError  # the last round returns or raises

    async def _authorization(self) -> dict[str, str]:
        auth = self._source.auth
        if auth is None:
            return {}
        match auth.kind:
            case "bearer":
                return {"Authorization": f"Bearer {_secret(auth.secret_file)}"}
            case "basic":
                pair = f"{auth.user}:{_secret(auth.secret_file)}".encode()
                return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
            case _:
                if not self._token or self._clock() >= self._token_until_s:
                    await self._renew(auth)
                return {"Authorization": f"Bearer {self._token}"}

    async def _renew(self, auth: Auth) -> None:
        """Get a token by client credentials (RFC 6749, section 4.4)."""
        form = {"grant_type": "client_credentials", **({"scope": auth.scope} if auth.scope else {})}
        pair = f"{auth.user}:{_secret(auth.secret_file)}".encode()
        status, headers, content = await self._ask(
            "POST", auth.token_url, data=form,
            headers={"Accept": "application/json", "Authorization": f"Basic {base64.b64encode(pair).decode()}"},
        )  # fmt: skip
        found = _document(auth.token_url, status, headers, content, self._clock())
        token = found.get("access_token") if isinstance(found, dict) else None
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise FetchFailed(f"{auth.token_url}: the answer has no access_token")
        seconds = found.get("expires_in")
        is_known = isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0
        self._token = token
        self._token_until_s = self._clock() + max(1.0, (float(seconds) if is_known else _TOKEN_S) - _RENEW_S)

    async def _ask(self, method: str, url: str, **given: Any) -> tuple[int, Mapping[str, str], bytes]:
        try:
            # Not to where a redirect leads: credentials would go there, too.
            async with self._session.request(method, url, allow_redirects=False, **given) as answer:
                content = await _read(url, answer)
                return answer.status, answer.headers, content
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise FetchFailed(f"{url}: {str(error) or type(error).__name__}") from None


async def _read(url: str, answer: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_chunked(65_536):
        size += len(chunk)
        if size > ANSWER_BYTES_MAX:
            raise FetchFailed(f"{url}: the answer has more than {ANSWER_BYTES_MAX:,} bytes: ask for smaller pages")
        chunks.append(chunk)
    content = b"".join(chunks)
    return _unpacked(url, content) if answer.headers.get("Content-Encoding", "").lower() == "gzip" else content


def _unpacked(url: str, content: bytes) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        for part in gunzipped(content):
            size += len(part)
            if size > ANSWER_BYTES_MAX:
                raise FetchFailed(f"{url}: the answer has more than {ANSWER_BYTES_MAX:,} bytes, unpacked")
            parts.append(part)
    except zlib.error as error:
        raise FetchFailed(f"{url}: the answer is not gzip: {error}") from None
    return b"".join(parts)


def _document(url: str, status: int, headers: Mapping[str, str], content: bytes, now_s: float) -> Any:
    if status != HTTPStatus.OK:
        words = "it redirects, which is not followed" if 300 <= status < 400 else ""
        shown = words or " ".join(content[:_SHOWN].decode("utf-8", "replace").split())
        raise FetchFailed(f"{url}: status {status}: {shown}", retry_s=retry_after_s(headers.get("Retry-After"), now_s))
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FetchFailed(f"{url}: the answer is no JSON: {str(error)[:_SHOWN]}") from None


def retry_after_s(text: str | None, now_s: float) -> float | None:
    """Seconds of a `Retry-After` header, at most `RETRY_AFTER_S_MAX`; None: there is none, or it is none."""
    if text is None:
        return None
    try:
        seconds = float(text) if text.strip().isdigit() else parsedate_to_datetime(text).timestamp() - now_s
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), RETRY_AFTER_S_MAX)


def _secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = file.read(SECRET_BYTES_MAX).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise FetchFailed(f"{path}: the secret cannot be read: {error}") from None
    if not found:
        raise FetchFailed(f"{path}: the secret is empty")
    return found
