"""The object store that snapshots are in, by obstore: a folder (`file://`), S3, Google Cloud Storage or Azure.

Credentials and endpoints come from the environment: `docs/object-stores.md`.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from streams.errors import StreamsError, UsageError
from streams.limits import SNAPSHOT_PART_BYTES
from streams.object_stores import client_options, in_words, is_without_bucket, refusal_of

SCHEMES: Final = ("file", "s3", "gs", "az", "abfs", "abfss")
_RETRIES: Final[Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_CONNECTION: Final[Any] = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(minutes=5)}

OnBytes = Callable[[int], object]
"""Told how many bytes have come; what it raises ends the transfer."""


class ObjectStoreUnavailable(StreamsError):
    """The object store does not answer, or refuses; waiting and trying again may help."""


class ObjectMissing(Exception):
    """There is no object of this name."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object as a listing has it."""

    name: str
    bytes: int
    modified_ms: int
    """By the clock of the object store, milliseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Size and digest of an object that was read."""

    bytes: int
    sha256: str


class ObjectStore:
    """Objects below an address. Any thread."""

    def __init__(self, address: str) -> None:
        """Connect to nothing yet.

        Raises:
            UsageError: obstore is missing, or the address cannot be used.

        """
        try:
            import obstore
            from obstore.exceptions import BaseError

            require_address(address)
        except ImportError:
            raise UsageError("snapshots need obstore: pip install 'logistics-streams[objects]'") from None
        except ValueError as error:
            raise UsageError(f"STREAMS_SNAPSHOT_URL: {error}") from None
        self.address = address.rstrip("/")
        self._obstore: Any = obstore
        self._errors: Any = (OSError, ValueError, BaseError)

    @cached_property
    def _store(self) -> Any:
        """The store; the folder of `file://` is created."""
        from obstore.store import LocalStore, from_url

        parts = urlsplit(self.address)
        if parts.scheme == "file":
            return LocalStore(unquote(parts.path), mkdir=True)
        connection: Any = client_options(os.environ, _CONNECTION)
        return from_url(self.address, retry_config=_RETRIES, client_options=connection)

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turn what obstore raises into errors of this module."""
        try:
            yield
        except FileNotFoundError as error:
            if is_without_bucket(error):
                raise self._unavailable(what, error) from None
            raise ObjectMissing(what) from None
        except self._errors as error:
            raise self._unavailable(what, error) from None

    def _unavailable(self, what: str, error: BaseException) -> ObjectStoreUnavailable:
        return ObjectStoreUnavailable(f"{self.address}: {what}: {in_words(error)}")

    def put(self, name: str, content: bytes | Path) -> None:
        """Write an object, as a whole or not at all; one of this name is replaced.

        Raises:
            ObjectStoreUnavailable: it may or may not be there.

        """
        with self._asking(f"writing {name}"):
            self._obstore.put(self._store, name, content)

    def get(self, name: str, *, bytes_max: int) -> bytes:
        """Content of a small object.

        Raises:
            ObjectMissing: there is none.
            ObjectStoreUnavailable: no answer, or it is larger than `bytes_max`.

        """
        with self._asking(f"reading {name}"):
            found = self._obstore.get(self._store, name)
            if int(found.meta["size"]) > bytes_max:
                raise ObjectStoreUnavailable(f"{self.address}/{name} is larger than {bytes_max:,} bytes")
            return bytes(found.bytes())

    def fetch(self, name: str, write: Callable[[bytes], object], on_bytes: OnBytes) -> Fetched:
        """Hand the content of an object to `write` in parts; says how long it is, and its SHA-256.

        Raises:
            ObjectMissing: there is none.
            ObjectStoreUnavailable: it does not come to its end.

        """
        digest, size = hashlib.sha256(), 0
        for part in self._parts(name):
            digest.update(part)
            size += len(part)
            write(part)
            on_bytes(len(part))
        return Fetched(size, digest.hexdigest())

    def _parts(self, name: str) -> Iterator[bytes]:
        with self._asking(f"reading {name}"):
            stream = iter(self._obstore.get(self._store, name).stream(min_chunk_size=SNAPSHOT_PART_BYTES))
        while True:
            with self._asking(f"reading {name}"):
                part = next(stream, None)
            if part is None:
                return
            yield bytes(part)

    def below(self, folder: str) -> Sequence[Found]:
        """All objects below a folder, by name.

        Raises:
            ObjectStoreUnavailable: no answer.

        """
        with self._asking(f"listing {folder}"):
            found = [
                Found(one["path"], int(one["size"]), int(one["last_modified"].timestamp() * 1000))
                for page in self._obstore.list(self._store, folder)
                for one in page
            ]
        return sorted(found, key=lambda one: one.name)

    def folders(self, folder: str) -> Sequence[str]:
        """Names of the folders in a folder (empty: the address itself).

        Raises:
            ObjectStoreUnavailable: no answer.

        """
        with self._asking(f"listing {folder or self.address}"):
            found = self._obstore.list_with_delimiter(self._store, folder or None)["common_prefixes"]
        return sorted(str(one).rpartition("/")[2] for one in found)

    def delete(self, name: str) -> None:
        """Delete an object; one that is gone already is fine.

        Raises:
            ObjectStoreUnavailable: it may be there still.

        """
        with suppress(ObjectMissing), self._asking(f"deleting {name}"):
            self._obstore.delete(self._store, [name])


def require_address(address: str) -> None:
    """Refuse what is no address of an object store, or holds more than bucket and path.

    Raises:
        ValueError: it is none; the message says what is expected.

    """
    if why := refusal_of(address):
        raise ValueError(why)
    parts = urlsplit(address)
    is_plain = not (parts.query or parts.fragment)
    is_whole = bool(parts.path.startswith("/") and not parts.netloc) if parts.scheme == "file" else bool(parts.netloc)
    if parts.scheme not in SCHEMES or not is_plain or not is_whole:
        raise ValueError(
            "file:///FOLDER, s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH; credentials come from the "
            "environment"
        )
