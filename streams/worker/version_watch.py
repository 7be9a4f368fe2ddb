"""Which version of each flow a worker runs: asked before it starts, and watched while it runs (docs/adr/0112)."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from confluent_kafka.admin import AdminClient

from streams.errors import StreamsError
from streams.flow.code import code_of_app
from streams.flow.declaration import Pipeline
from streams.kafka.admin import partition_counts_with_leaderless, wait_for_broker
from streams.kafka.versions_topic import VersionsTopic, versions_of
from streams.settings import Settings
from streams.versions.record import CurrentRecord, Versions

log = structlog.get_logger(__name__)

LOOK_S: Final = 2.0
"""Interval between two checks while a worker runs."""
_WAIT_S: Final = 0.5
"""Interval between two checks while a worker waits for the end of a switch."""
_CLOSE_S: Final = 5.0


class CodeRetired(StreamsError):
    """The code here is that of the version before."""


def current_versions(
    settings: Settings, declared: Sequence[Pipeline], *, on_wait: Callable[[], None]
) -> list[Pipeline]:
    """The flows in the versions that should run. Waits while one of them is being switched.

    `on_wait` is called before it waits.

    Raises:
        CodeRetired: a version has taken over from what the code here computes.
        StreamsError: no answer; or a versions topic holds something else.

    """
    counts = partition_counts_with_leaderless(wait_for_broker(settings))
    return [
        one.as_version(_settled(settings, one, on_wait).version) if one.versions in counts else one for one in declared
    ]


def _settled(settings: Settings, declared: Pipeline, on_wait: Callable[[], None]) -> CurrentRecord:
    is_said = False
    while True:
        versions = versions_of(settings, declared)
        current = versions.current
        if current.going_to is None:
            _require_code(declared, versions)
            return current
        if not is_said:
            is_said = True
            on_wait()
            log.info(
                "the flow is switched to another version: waiting", flow=declared.name, version=current.version,
                going_to=current.going_to,
            )  # fmt: skip
        time.sleep(_WAIT_S)


def _require_code(declared: Pipeline, versions: Versions) -> None:
    """Refuse code that belongs to the previous version only."""
    current, code = versions.current, code_of_app()
    if not code or code not in current.retired:
        return
    made = versions.made.get(current.version)
    which = f"version {current.version}" if current.version else "the declared version"
    with_code = f" (made with code {made.code})" if made is not None else ""
    raise CodeRetired(
        f"{declared.name}: {which}{with_code} has taken over, and the code here ({code}) is what ran before: deploy "
        f"that version's code, then start again; or go back with `streams backfill --flow {declared.name} --rollback`"
    )


class VersionWatch:
    """Notices that another version of a flow should run than this worker runs.

    A broker that does not answer changes nothing.
    """

    def __init__(self, settings: Settings, running: Sequence[Pipeline], on_switch: Callable[[str], None]) -> None:
        """`running`: the flows as they run; `on_switch` gets the name of the first one that should not."""
        self._settings, self._on_switch = settings, on_switch
        self._running = {one.versions: one for one in running}
        self._readers: dict[str, VersionsTopic] = {}
        self._client: AdminClient | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="versions", daemon=True)

    def start(self) -> None:
        """Start the thread that reads the versions of flows every `LOOK_S` seconds. Call it once."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and wait for it for a limited time. May be called from that thread, which does not wait."""
        self._stop.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                found = self._look()
            except StreamsError as error:
                log.debug("which version is to run was not read", error=str(error))
                self._client = None
                continue
            if found is not None:
                self._on_switch(found)
                break
        for reader in self._readers.values():
            reader.close()

    def _look(self) -> str | None:
        if missing := self._running.keys() - self._readers.keys():
            self._client = self._client or wait_for_broker(self._settings)
            for topic in missing & partition_counts_with_leaderless(self._client).keys():
                self._readers[topic] = VersionsTopic(self._settings, self._running[topic])
        for topic, reader in self._readers.items():
            flow, current = self._running[topic], reader.read().current
            if current.going_to is not None or current.version != flow.version:
                log.warning(
                    "another version of the flow is to run: this worker stops, and starts again with that one",
                    flow=flow.name, version=current.version, going_to=current.going_to,
                )  # fmt: skip
                return flow.name
        return None
