"""Replaces the passwords of running Kafka clients when the file with the password changes.

librdkafka accepts new SASL credentials for a running client and uses them for its next connection, or when the broker
asks it to authenticate again (`connections.max.reauth.ms`). Certificates, keys and the secret of an OIDC client are
read when a client is made, and not again: that such a file has changed is said in the log, and the process has to be
restarted.
"""

import hashlib
import threading
import weakref
from pathlib import Path
from typing import Any, Final

import structlog

from streams.settings import Settings

log = structlog.get_logger(__name__)

LOOK_S: Final = 5.0
"""Interval between two checks of the files."""
FILES: Final = (
    "KAFKA_SSL_CA_LOCATION",
    "KAFKA_SSL_CERTIFICATE_LOCATION",
    "KAFKA_SSL_KEY_LOCATION",
    "KAFKA_HTTPS_CA_LOCATION",
)
"""Files that a client reads when it is made."""
_FIXED_SECRETS: Final = ("KAFKA_SSL_KEY_PASSWORD", "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET")
_FILE_BYTES_MAX: Final = 1 << 20


class CredentialsWatch:
    """Watches the files of one `Settings` for the clients that were made with it. Any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clients: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._password = settings.secret("KAFKA_SASL_PASSWORD")
        self._fixed = {name: _digest(path) for name, path in self._fixed_files().items()}

    def add(self, client: Any) -> None:
        """Update the password of a client for as long as the client exists."""
        with self._lock:
            self._clients.add(client)

    def look(self) -> None:
        """Read the files once; give a changed password to all clients, log other files that have changed."""
        password = self._settings.secret("KAFKA_SASL_PASSWORD")
        with self._lock:
            clients = list(self._clients)
        if password is not None and password != self._password:
            given = sum(_give(client, str(self._settings.kafka_sasl_username), password) for client in clients)
            log.info("the password of the Kafka clients has changed; it is used from now on", clients=given)
            self._password = password
        for name, path in self._fixed_files().items():
            digest = _digest(path)
            if digest is not None and digest != self._fixed[name]:
                self._fixed[name] = digest
                log.warning(
                    "a file has changed that Kafka clients read when they are made: restart this process before what "
                    "they have read expires",
                    variable=name,
                )

    def _fixed_files(self) -> dict[str, Path]:
        files = {name: getattr(self._settings, name.lower()) for name in FILES}
        files |= {f"{name}_FILE": self._settings.secret_file(name) for name in _FIXED_SECRETS}
        return {name: path for name, path in files.items() if path is not None}

    @property
    def has_files(self) -> bool:
        """Whether there is anything to watch."""
        return self._settings.secret_file("KAFKA_SASL_PASSWORD") is not None or bool(self._fixed)


class _Watches:
    """One watch per `Settings` in use, and the thread that runs their checks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: dict[int, CredentialsWatch] = {}
        """By id of the settings, which a watch keeps alive."""
        self._thread: threading.Thread | None = None

    def of(self, settings: Settings) -> CredentialsWatch:
        with self._lock:
            found = self._watches.get(id(settings))
            if found is None:
                found = CredentialsWatch(settings)
                if not found.has_files:
                    return found
                self._watches[id(settings)] = found
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="kafka-credentials", daemon=True)
                self._thread.start()
            return found

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_S):
            with self._lock:
                watches = list(self._watches.values())
            for watch in watches:
                watch.look()


_WATCHES: Final = _Watches()


def keep_in_force(settings: Settings, client: Any) -> None:
    """Update the client's password whenever the file with it changes."""
    _WATCHES.of(settings).add(client)


def _give(client: Any, user: str, password: str) -> bool:
    try:
        client.set_sasl_credentials(user, password)
    except RuntimeError:  # it is closed
        return False
    return True


def _digest(path: Path) -> bytes | None:
    """Digest of the content; None while the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(_FILE_BYTES_MAX)).digest()
    except OSError:
        return None
