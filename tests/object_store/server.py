"""A real S3 server for tests: SeaweedFS as a process on this machine, killed and frozen by its process id."""

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import httpx2 as httpx
import obstore
from obstore.store import S3Store

from streams.local.ports import HOST, free_port, is_open
from tests.left_out import weed

ACCESS_KEY: Final = "test-access-key"
SECRET_KEY: Final = "s3cret-of-the-tests"  # noqa: S105  of a server that lives as long as a test
READER_KEY: Final = "test-reader-key"
"""Of one that may list and read, and write nothing."""
REGION: Final = "eu-central-1"
_START_S: Final = 60.0
_MINUTE: Final = timedelta(minutes=1)
_PORTS: Final = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of one test."""

    name: str
    endpoint: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def environment(self, *, access_key: str = ACCESS_KEY, secret_key: str = SECRET_KEY) -> dict[str, str]:
        """What a user would set."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
        }

    @property
    def store(self) -> S3Store:
        """A client beside those of the product."""
        return S3Store(
            self.name,
            endpoint=self.endpoint,
            region=REGION,
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            client_options={"allow_http": True},
        )

    def names(self, prefix: str | None = None) -> list[str]:
        """All objects below a prefix."""
        return sorted(one["path"] for page in obstore.list(self.store, prefix) for one in page)

    def empty(self) -> None:
        """Delete everything in it."""
        if names := self.names():
            obstore.delete(self.store, names)


class S3Server:
    """The server; its folder survives `kill` and `start`."""

    def __init__(self, folder: Path) -> None:
        program = weed()
        assert program is not None
        self._program, self._folder = program, folder
        self._ports: dict[str, int] = {}
        for name in _PORTS:
            self._ports[name] = free_port(*self._ports.values())
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True)
        (folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n", encoding="utf-8")
        (folder / "users.json").write_text(json.dumps(_users()), encoding="utf-8")

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self._ports['s3']}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        port = self._ports
        options: dict[str, Any] = {
            "dir": self._folder / "data", "ip": HOST, "ip.bind": HOST, "filer": "true", "s3": "true",
            "master.port": port["master"], "master.port.grpc": port["master.grpc"], "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64, "volume.port": port["volume"], "volume.port.grpc": port["volume.grpc"],
            "volume.max": 1_000, "volume.preStopSeconds": 0, "filer.port": port["filer"],
            "filer.port.grpc": port["filer.grpc"], "filer.localSocket": self._folder / "filer.sock",
            "s3.port": port["s3"], "s3.port.grpc": port["s3.grpc"], "s3.port.iceberg": 0, "s3.port.lance": 0,
            "s3.localSocket": self._folder / "s3.sock", "s3.config": self._folder / "users.json",
            "s3.autoCreateBucket": "false",
        }  # fmt: skip
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "server", *(f"-{name}={value}" for name, value in options.items())],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(self._folder)},
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, f"the S3 server has ended: {self._folder / 'server.log'}"
            assert time.monotonic() < deadline, f"the S3 server does not answer: {self._folder / 'server.log'}"
            time.sleep(0.1)

    def _answers(self) -> bool:
        """Whether an object can be written."""
        if not is_open(self._ports["s3"]):
            return False
        try:
            self._create("ready")
            store = Bucket("ready", self.endpoint).store
            obstore.put(store, "ready", b"yes")
        except (OSError, obstore.exceptions.BaseError):
            return False
        return True

    def bucket(self) -> Bucket:
        """A new one."""
        name = f"b-{uuid.uuid4().hex[:12]}"
        self._create(name)
        return Bucket(name, self.endpoint)

    def _create(self, name: str) -> None:
        self._ask("PUT", name, httpx.codes.OK, httpx.codes.CONFLICT)

    def delete(self, bucket: Bucket) -> None:
        """Delete a bucket with what is in it."""
        bucket.empty()
        self._ask("DELETE", bucket.name, httpx.codes.NO_CONTENT, httpx.codes.NOT_FOUND)

    def _ask(self, method: Literal["PUT", "DELETE"], name: str, *expected: int) -> None:
        """Ask for a bucket itself, for which clients of object stores have no call: an object without a name in it."""
        url = obstore.sign(Bucket(name, self.endpoint).store, method, "", expires_in=_MINUTE)
        answer = httpx.request(method, url)
        if answer.status_code not in expected:
            raise OSError(f"{method} of the bucket {name}: {answer.status_code} {answer.text[:200]}")

    def kill(self) -> None:
        """As a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It accepts connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


def _users() -> dict[str, Any]:
    """Who may do what, in the server's own words."""

    def user(name: str, key: str, actions: list[str]) -> dict[str, Any]:
        return {"name": name, "credentials": [{"accessKey": key, "secretKey": SECRET_KEY}], "actions": actions}

    return {
        "identities": [
            user("writer", ACCESS_KEY, ["Admin", "Read", "List", "Tagging", "Write"]),
            user("reader", READER_KEY, ["Read", "List"]),
        ]
    }
