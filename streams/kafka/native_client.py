"""Consumes and produces without a Python call per record: by the native library, with the same librdkafka.

confluent-kafka keeps configuration, rebalances, seeks, transactions and commits. The library gets a client's handle by
the documented plugin interceptor; it must be the one that the client object holds, or Python takes or gives the records
as before.
"""

import ctypes
import functools
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar, cast

import confluent_kafka
import structlog
from numpy.typing import NDArray

from streams.avro.native import Mode, Native, choose
from streams.batch.columns import Headers, Int64
from streams.batch.refs import ByteRefs, RecordBytes
from streams.errors import UsageError
from streams.kafka import clients
from streams.kafka.clients import Consumer, Producer
from streams.settings import Settings

log = structlog.get_logger(__name__)

Client = TypeVar("Client", Consumer, Producer)

_VERSION_MIN: Final = (2, 10)
"""Oldest librdkafka, with cooperative rebalances over forwarded queues."""
_PLUGIN: Final = "plugin.library.paths"


class NativeRecords(Protocol):
    """Records as they came, one row each, and notices that are not records."""

    partition: Int64
    offset: Int64
    timestamp_ms: Int64
    timestamp_kind: NDArray[Any]
    """Kinds as numbered by confluent-kafka."""
    leader_epoch: NDArray[Any]
    """Epoch of the leader that each record came from; -1: not known."""
    key: ByteRefs
    value: ByteRefs
    headers: Sequence[tuple[int, Headers, int]]
    """By row, the readable headers and the number of unreadable ones; only rows that have headers."""
    notices: Sequence[tuple[int, int, int, str]]
    """Notices of the client: partition, offset, error code and text of each."""


class NativeReader(Protocol):
    """Reads from a queue of its own. Close it before its consumer, whose `close` would wait for it."""

    def attach(self, topic: str, partition: int) -> None:
        """Forward the records of a partition to this queue."""

    def poll(self, max: int, timeout_ms: int) -> NativeRecords | None:  # noqa: A002 - the library's name
        """Up to `max` records that come within `timeout_ms`, in order of arrival."""

    def close(self) -> None:
        """Release the queue."""


class NativeProducer(Protocol):
    """Produces records with a producer, which it keeps alive: release both together."""

    def produce(
        self,
        topic: str,
        partition: int,
        keys: RecordBytes,
        values: RecordBytes,
        timestamps_ms: Int64,
        headers: list[Headers | None] | None,
        start: int,
    ) -> tuple[int, int]:
        """Produce the records from row `start` on; returns how many were accepted, and the next one's error code or 0.

        `partition` -1: by the key. Accepted records have no delivery report.

        Raises:
            ValueError: the columns differ in length, or hold something else.

        """


class NativeClients:
    """Makes consumers and producers together with their native readers and producers."""

    def __init__(self, native: Native) -> None:
        """Find librdkafka.

        Raises:
            RuntimeError: records cannot be taken natively; the message says why.

        """
        library: Any = native.library
        self._library = library
        name, number = confluent_kafka.libversion()
        if not _VERSION_MIN <= (number >> 24, number >> 16 & 0xFF) < (3, 0):
            raise RuntimeError(f"librdkafka {name} is not from {'.'.join(map(str, _VERSION_MIN))} up to 3")
        if platform.python_implementation() != "CPython":
            raise RuntimeError("only with CPython the handle of a client can be checked")
        self._path = str(getattr(library, "streams_native", library).__file__)
        if ";" in self._path:
            raise RuntimeError(f"{self._path} has a semicolon, by which librdkafka divides paths")
        library.load_client(confluent_kafka.cimpl.__file__)

    def consumer(self, settings: Settings, config: Mapping[str, Any]) -> tuple[Consumer, NativeReader | None]:
        """As `clients.consumer`, with its reader; None, and logged, where the two ways to its handle disagree."""
        made, handle = self._made(clients.consumer, settings, config)
        return made, None if handle is None else cast("NativeReader", self._library.Reader(handle))

    def producer(self, settings: Settings, config: Mapping[str, Any]) -> tuple[Producer, NativeProducer | None]:
        """As `clients.producer`, with its native producer; None, and logged, as for `consumer`."""
        made, handle = self._made(clients.producer, settings, config)
        return made, None if handle is None else cast("NativeProducer", self._library.Producer(handle, made))

    def _made(
        self, make: Callable[[Settings, Mapping[str, Any]], Client], settings: Settings, config: Mapping[str, Any]
    ) -> tuple[Client, int | None]:
        """A client and its handle."""
        self._library.take_client()
        made = make(settings, {**config, _PLUGIN: self._path})
        handle: int = self._library.take_client()
        if handle == 0 or handle != _handle_within(made):
            log.warning("the client's handle is not certain: its records are moved in Python")
            return made, None
        return made, handle


@functools.cache
def native_clients(mode: Mode) -> NativeClients | None:
    """The native clients, according to the setting; None where Python moves the records (`off`, or not possible here).

    Raises:
        UsageError: the mode is `on`, and it is not possible.

    """
    native = choose(mode).native
    if native is None:
        return None
    try:
        return NativeClients(native)
    except RuntimeError as error:
        if mode == "on":
            raise UsageError(f"STREAMS_NATIVE=on, but records cannot be taken and given natively: {error}") from None
        log.warning("records are taken and given in Python", why=str(error))
        return None


def _handle_within(client: Consumer | Producer) -> int:
    """The handle inside of the object: confluent-kafka has it right after Python's object header."""
    return ctypes.c_void_p.from_address(id(client) + object.__basicsize__).value or 0
