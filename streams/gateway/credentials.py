"""Who may send to which source: tokens and webhook secrets, in one file that the command line writes.

A token is 256 random bits, kept as its SHA-256: nobody can try them all, so a slow hash (scrypt, argon2), which is made
for passwords that people choose, would only cost each request its time. A webhook's secret must be kept as it is, since
signatures are computed with it; the file can be read by its owner alone.

The file is replaced as a whole. A gateway reads it again when it has changed, so that a revocation holds within
`LOOK_AGAIN_S`. Rotation: make a second credential, move the senders, revoke the first, at once or at a later time.
"""

import base64
import binascii
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import structlog

from streams.errors import StreamsError, UsageError

log = structlog.get_logger(__name__)

FILE: Final = "credentials.json"
LOOK_AGAIN_S: Final = 1.0
FILE_BYTES_MAX: Final = 64 * 1024 * 1024
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
TOKEN_PREFIX: Final = "gw_"  # noqa: S105 - what tokens begin with
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - as above
"""Prefix of secrets, as Standard Webhooks has it."""
_TOKEN: Final = re.compile(r"gw_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_SECRET_BYTES: Final = 32
_VERSION: Final = 1


class Kind(StrEnum):
    """How a sender shows who it is."""

    TOKEN = "token"  # noqa: S105 - the name of a kind
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class Credential:
    """A token or a webhook's secret, what it permits, and until when. Times are milliseconds since 1970."""

    id: str
    kind: Kind
    name: str
    """Name of the sender; several credentials may have the same."""
    sources: tuple[str, ...]
    secret: str
    """Hexadecimal SHA-256 of a token; the secret of a webhook."""
    created_ms: int
    ends_ms: int | None = None
    """When it ends, or ended; None: never."""

    def is_valid(self, now_ms: int) -> bool:
        """Whether the credential is still valid at this time."""
        return self.ends_ms is None or now_ms < self.ends_ms

    def __repr__(self) -> str:
        return f"Credential({self.id}, {self.kind}, {self.name}, {self.sources})"


@dataclass(frozen=True, slots=True)
class Made:
    """A new credential, and what the sender needs of it: shown once, kept nowhere (of a token)."""

    credential: Credential
    shown: str


class CredentialFile:
    """The file of credentials below a directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE

    def read(self) -> tuple[Credential, ...]:
        """All credentials, ended ones too; none when there is no file.

        Raises:
            StreamsError: it cannot be read, or is not what this module writes.

        """
        try:
            with self.path.open("rb") as file:
                content = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StreamsError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        try:
            return _parsed(content)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise StreamsError(
                f"{self.path} is not a file of credentials ({error}): restore it, or remove it"
            ) from None

    def new(
        self, kind: Kind, name: str, sources: Sequence[str], *, ends_ms: int | None = None, now_ms: int | None = None
    ) -> Made:
        """Add a credential.

        Raises:
            UsageError: the name is none.
            StreamsError: the file cannot be read or written.

        """
        if not NAME.fullmatch(name):
            raise UsageError(f"{name!r}: a name has 1 to 64 letters, digits, dots, dashes and underscores")
        created_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        with self._locked():
            known = self.read()
            made = _made(kind, name, tuple(sources), created_ms, ends_ms, {one.id for one in known})
            self._write((*known, made.credential))
        return made

    def end(self, credential_id: str, ends_ms: int) -> Credential:
        """Have a credential end at a time; one that ends sooner stays as it is.

        Raises:
            UsageError: there is none with this id.
            StreamsError: the file cannot be read or written.

        """
        with self._locked():
            known = self.read()
            found = next((one for one in known if one.id == credential_id), None)
            if found is None:
                raise UsageError(f"there is no credential {credential_id!r}: `streams gateway token list` names all")
            if found.ends_ms is not None and found.ends_ms <= ends_ms:
                return found
            ended = replace(found, ends_ms=ends_ms)
            self._write(tuple(ended if one.id == credential_id else one for one in known))
        return ended

    def _write(self, credentials: Sequence[Credential]) -> None:
        content = {"version": _VERSION, "credentials": [asdict(one) for one in credentials]}
        fresh = self.path.with_suffix(".new")
        with self._said():
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the file, so that commands which run at the same time change it one after the other."""
        with self._said():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StreamsError(f"{self.path}: cannot be written: {error.strerror or error}") from None


class Credentials:
    """The credentials in force, as a gateway looks them up; the file is read again when it has changed."""

    def __init__(
        self,
        file: CredentialFile,
        *,
        look_again_s: float = LOOK_AGAIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the file.

        Raises:
            StreamsError: it cannot be read.

        """
        self._file, self._look_again_s, self._clock = file, look_again_s, clock
        self._looked_s = clock()
        self._stamp = _stamp(file.path)
        self._take(file.read())

    def by_token(self, token: str, now_ms: int) -> Credential | None:
        """Whose token it is; None: nobody's, or it has ended. Tells nothing by how long it takes."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        self._look_again()
        credential = self._tokens.get(found[1])
        digest = hashlib.sha256(token.encode()).hexdigest()
        is_same = hmac.compare_digest(digest, credential.secret if credential is not None else digest[::-1])
        return credential if is_same and credential is not None and credential.is_valid(now_ms) else None

    def webhooks(self, source: str, now_ms: int) -> list[Credential]:
        """Webhook secrets in force for a source."""
        self._look_again()
        return [one for one in self._webhooks if source in one.sources and one.is_valid(now_ms)]

    def is_guarded(self, source: str) -> bool:
        """Whether there is, or was, a credential for a source: then none gets in without."""
        self._look_again()
        return source in self._guarded

    def _look_again(self) -> None:
        if self._clock() - self._looked_s < self._look_again_s:
            return
        self._looked_s = self._clock()
        stamp = _stamp(self._file.path)
        if stamp == self._stamp:
            return
        try:
            self._take(self._file.read())
            self._stamp = stamp
        except StreamsError as error:
            log.warning("credentials cannot be read again; those that were read last stay in force", error=str(error))

    def _take(self, credentials: Sequence[Credential]) -> None:
        self._tokens = {one.id: one for one in credentials if one.kind is Kind.TOKEN}
        self._webhooks = [one for one in credentials if one.kind is Kind.WEBHOOK]
        self._guarded = frozenset(source for one in credentials for source in one.sources)


def _parsed(content: bytes) -> tuple[Credential, ...]:
    if len(content) > FILE_BYTES_MAX:
        raise ValueError("it is too large")
    found = json.loads(content)
    if found["version"] != _VERSION:
        raise ValueError(f"it is of version {found['version']}")
    return tuple(_credential(each) for each in found["credentials"])


def secret_of(credential: Credential) -> bytes:
    """The key that a webhook's signatures are computed with."""
    return base64.b64decode(credential.secret.removeprefix(SECRET_PREFIX))


def _made(
    kind: Kind, name: str, sources: tuple[str, ...], created_ms: int, ends_ms: int | None, taken: set[str]
) -> Made:
    credential_id = secrets.token_hex(6)
    while credential_id in taken:
        credential_id = secrets.token_hex(6)
    if kind is Kind.TOKEN:
        shown = f"{TOKEN_PREFIX}{credential_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        kept = hashlib.sha256(shown.encode()).hexdigest()
    else:
        shown = kept = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    return Made(Credential(credential_id, kind, name, sources, kept, created_ms, ends_ms), shown)


def _credential(found: Any) -> Credential:
    ends_ms = found["ends_ms"]
    credential = Credential(
        id=str(found["id"]),
        kind=Kind(found["kind"]),
        name=str(found["name"]),
        sources=tuple(map(str, found["sources"])),
        secret=str(found["secret"]),
        created_ms=int(found["created_ms"]),
        ends_ms=None if ends_ms is None else int(ends_ms),
    )
    if credential.kind is Kind.WEBHOOK:
        try:
            secret_of(credential)
        except binascii.Error as error:
            raise ValueError(f"the secret of {credential.id} is no base64") from error
    return credential


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
