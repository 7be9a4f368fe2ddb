"""Reads the requests to forget keys, in a thread of its own, for workers that run (docs/adr/0090)."""

import threading
from typing import Final

import structlog

from streams.engine.forget import OpenRequests
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.changelog import KafkaChangelog
from streams.kafka.places import KafkaPlaces
from streams.resilience.retry import Retrier, quietly
from streams.settings import Settings
from streams.worker.ports import AskedToForget, TimeSource

log = structlog.get_logger(__name__)

LOOK_S: Final = 5.0
"""Pause between two reads of the topic."""
_CLOSE_S: Final = 5.0


class ForgetInbox:
    """Implements `streams.worker.ports.ForgetNews` with Kafka. Connects at the first read."""

    def __init__(self, settings: Settings, flow: Pipeline, clock: TimeSource, *, look_s: float = LOOK_S) -> None:
        self._settings, self._flow, self._clock, self._look_s = settings, flow, clock, look_s
        self._stop = threading.Event()
        self._asked: AskedToForget | None = None
        self._told_unreadable = 0
        self._thread = threading.Thread(target=self._run, name=f"{flow.name}-forget", daemon=True)

    def start(self) -> None:
        """Start the thread that reads requests. Call it once; until it has read, `asked` returns None."""
        self._thread.start()

    def asked(self) -> AskedToForget | None:
        """The open requests; see `ForgetNews`."""
        return self._asked

    def close(self) -> None:
        """Stop reading. A read that waits for a broker ends by itself, later."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        flow = self._flow
        places = KafkaPlaces(self._settings, flow)
        reader: KafkaChangelog | None = None
        requests: OpenRequests | None = None
        while not self._stop.wait(self._look_s):
            read_at_s = self._clock.monotonic_s()
            try:
                if places.id_of(flow.forget) is None:
                    _close(reader)
                    reader = requests = None
                    self._asked = AskedToForget(read_at_s, ())
                    continue
                if reader is None or requests is None:
                    retrier = Retrier(self._stop, say=quietly)
                    reader = KafkaChangelog(self._settings, group=flow.group, source=flow.source, retrier=retrier)
                    requests = OpenRequests(flow, reader)
                found = requests.read()
            except StreamsError as error:
                log.debug("requests to forget keys were not read", topic=flow.forget, error=str(error))
                _close(reader)
                reader = requests = None
                continue
            if requests.unreadable > self._told_unreadable:
                log.warning(
                    "requests to forget keys have another version or are not readable: they are not carried out",
                    topic=flow.forget, records=requests.unreadable,
                )  # fmt: skip
            self._told_unreadable = requests.unreadable
            self._asked = AskedToForget(read_at_s, found)
        _close(reader)


def _close(reader: KafkaChangelog | None) -> None:
    if reader is not None:
        reader.close()
