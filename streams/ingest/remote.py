"""Files that are not on this machine: object stores and HTTP. They are copied here first, as standard input is.

A copy is complete or does not exist: its content decides whether it was sent before. Object stores are read with
obstore, which takes credentials and endpoints from the environment (`docs/object-stores.md`).
"""

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final
from urllib.parse import unquote, urlsplit

import httpx2 as httpx

from streams.errors import StreamsError, UsageError
from streams.object_stores import cause_of, in_words, is_without_bucket, refusal_of
from streams.resilience.retry import Backoff

HTTP: Final = ("http", "https")
STORES: Final = ("s3", "gs", "az", "abfs", "abfss")
OBJECTS_MAX: Final = 10_000
"""That one pattern may name."""
_PATTERN_CHARACTERS: Final = frozenset("*?[")
_PART_BYTES: Final = 64 * 1024
_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
_BACKOFF: Final = Backoff(first_s=0.5, pause_s_max=5.0)
_ATTEMPTS_MAX: Final = 6
"""Attempts in a row without a single byte before giving up."""
_RETRIES: Final[Any] = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
_ROOM_LEFT_BYTES: Final = 64 << 20

Progress = Callable[[float], None]
"""Called with the part of a file (0 to 1) that has arrived."""


def is_remote(argument: str) -> bool:
    """Whether an argument is the address of a file elsewhere."""
    scheme, found, _ = argument.partition("://")
    return bool(found) and scheme.lower() in (*HTTP, *STORES)


def fetched(address: str, folder: Path, progress: Progress) -> Iterator[tuple[str, Path]]:
    """Copy what an address, or a pattern in an object store, names into `folder`: what to call each file, and where.

    Raises:
        UsageError: nothing is there, or the address cannot be used.
        StreamsError: it cannot be read to its end, or there is no room for it.

    """
    if urlsplit(address).scheme.lower() in HTTP:
        yield _by_http(address, folder, progress)
    else:
        yield from _from_store(address, folder, progress)


# --- HTTP -----------------------------------------------------------------------------------------------------------


def _by_http(address: str, folder: Path, progress: Progress) -> tuple[str, Path]:
    parts = urlsplit(address)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    shown = f"{parts.scheme}://{host}{port}{parts.path}"  # user, password and a signature are secret
    target = folder / (PurePosixPath(unquote(parts.path)).name or "index")
    copy = _HttpCopy(address, shown, target, progress)
    failures = 0
    while True:
        before = copy.done
        try:
            copy.go_on()
        except httpx.HTTPError as error:
            failures = failures + 1 if copy.done == before else 1
            if failures >= _ATTEMPTS_MAX:
                words = f"{shown}: cannot be read: {str(error) or type(error).__name__}"
                raise StreamsError(words) from None
            time.sleep(_BACKOFF.jittered_s(failures))
        except httpx.InvalidURL as error:
            raise UsageError(f"{shown}: {error}") from None
        else:
            return shown, target


class _HttpCopy:
    """A copy of a file by HTTP. After an interruption it continues if the server supports ranges of one version."""

    def __init__(self, address: str, shown: str, target: Path, progress: Progress) -> None:
        self._address, self._shown, self._target, self._progress = address, shown, target, progress
        self.done = 0
        self._version: str | None = None

    def go_on(self) -> None:
        """Read the missing part.

        Raises:
            httpx.HTTPError: it broke off; it may be called again.
            UsageError: the server has no such file.
            StreamsError: the server refuses, or there is no room.

        """
        headers = {"Accept-Encoding": "identity"}
        if self.done and self._version is not None:
            headers |= {"Range": f"bytes={self.done}-", "If-Range": self._version}
        with httpx.stream("GET", self._address, headers=headers, timeout=_TIMEOUT, follow_redirects=True) as answer:
            self._judge(answer)
            if answer.status_code != httpx.codes.PARTIAL_CONTENT:
                self.done = 0
            self._version = answer.headers.get("etag") or answer.headers.get("last-modified")
            if (self._version or "").startswith("W/"):
                self._version = None  # a weak one does not identify bytes
            declared = answer.headers.get("content-length")
            size = None if declared is None or not declared.isdigit() else self.done + int(declared)
            _require_room(self._target, (size or 0) - self.done, self._shown)
            with _writing(self._target, self._shown, is_new=not self.done) as out:
                for part in answer.iter_raw(_PART_BYTES):
                    _write(out, part, self._shown)
                    self.done += len(part)
                    self._progress(min(1.0, self.done / size) if size else 0.0)

    def _judge(self, answer: httpx.Response) -> None:
        code = answer.status_code
        if code in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
            raise UsageError(f"{self._shown}: no such file ({code})")
        if code >= httpx.codes.INTERNAL_SERVER_ERROR or code == httpx.codes.TOO_MANY_REQUESTS:
            raise httpx.HTTPStatusError(f"the server answers {code}", request=answer.request, response=answer)
        if not answer.is_success:
            raise StreamsError(f"{self._shown}: the server refuses: {code} {answer.reason_phrase}")


# --- object stores --------------------------------------------------------------------------------------------------


def _from_store(address: str, folder: Path, progress: Progress) -> Iterator[tuple[str, Path]]:
    parts = urlsplit(address)
    if why := refusal_of(address):
        raise UsageError(why)
    if not parts.netloc:
        raise UsageError(f"{parts.scheme}: {parts.scheme}://BUCKET/PATH")
    try:
        import obstore
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise UsageError(f"{address}: object stores need obstore: pip install 'logistics-streams[objects]'") from None
    bucket, path = f"{parts.scheme}://{parts.netloc}", unquote(parts.path).lstrip("/")
    try:
        store = from_url(bucket, retry_config=_RETRIES)
        for number, name in enumerate(_names(obstore, store, path, address)):
            target = folder / f"{number}" / PurePosixPath(name).name
            target.parent.mkdir()
            _copy_object(obstore, store, name, target, f"{bucket}/{name}", progress)
            yield f"{bucket}/{name}", target
    except FileNotFoundError as error:
        why = cause_of(error) if is_without_bucket(error) else "no such object"
        raise UsageError(f"{address}: {why}") from None
    except BaseError as error:
        raise StreamsError(f"{address}: cannot be read: {in_words(error)}") from None


def _names(obstore: Any, store: Any, path: str, address: str) -> list[str]:
    """The objects that a path names, or a pattern, sorted."""
    if not _PATTERN_CHARACTERS & set(path):
        return [path]
    first = min(path.index(character) for character in _PATTERN_CHARACTERS if character in path)
    prefix = path[:first].rpartition("/")[0]
    found: list[str] = []
    for page in obstore.list(store, prefix or None):
        found += [one["path"] for one in page if fnmatchcase(one["path"], path)]
        if len(found) > OBJECTS_MAX:
            raise UsageError(f"{address}: names more than {OBJECTS_MAX:,} objects")
    if not found:
        raise UsageError(f"{address}: no object matches")
    return sorted(found)


def _copy_object(obstore: Any, store: Any, name: str, target: Path, shown: str, progress: Progress) -> None:
    """Copy one version of an object. A request ends at its timeout: another one brings what is left."""
    found = obstore.get(store, name)
    size, done = int(found.meta["size"]), 0
    version = found.meta.get("e_tag")
    _require_room(target, size, shown)
    with _writing(target, shown, is_new=True) as out:
        while True:
            before = done
            try:
                for part in found.stream(min_chunk_size=_PART_BYTES):
                    _write(out, part, shown)
                    done += len(part)
                    progress(min(1.0, done / max(1, size)))
                break
            except obstore.exceptions.GenericError:
                if done == before or version is None:
                    raise
            try:
                found = obstore.get(store, name, options={"range": {"offset": done}, "if_match": version})
            except (obstore.exceptions.PreconditionError, FileNotFoundError):
                raise StreamsError(f"{shown}: it was replaced while it was read: run it again") from None
    if done != size:
        raise StreamsError(f"{shown}: {done} of {size} bytes came")


# --- this machine ---------------------------------------------------------------------------------------------------


def _require_room(target: Path, size: int, shown: str) -> None:
    free = shutil.disk_usage(target.parent).free
    if size + _ROOM_LEFT_BYTES > free:
        raise StreamsError(f"{shown}: {size:,} bytes have no room in {target.parent} ({free:,} free); set TMPDIR")


def _writing(target: Path, shown: str, *, is_new: bool) -> BinaryIO:
    try:
        return target.open("wb" if is_new else "ab")
    except OSError as error:
        raise StreamsError(f"{shown}: no copy can be made in {target.parent}: {error.strerror}") from None


def _write(out: BinaryIO, part: bytes, shown: str) -> None:
    try:
        out.write(part)
    except OSError as error:
        raise StreamsError(f"{shown}: no copy can be made here: {error.strerror}") from None
