"""The MQTT client of a bridge: stays connected, passes messages to an event loop, acknowledges on demand.

paho-mqtt runs in a thread of its own. Acknowledgements are manual: a message is the broker's until `acknowledge`. The
session outlives the connection: messages of that time wait at the broker, and unacknowledged ones are sent again.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from streams.bridge.address import Address
from streams.errors import UsageError
from streams.settings import Settings

log = structlog.get_logger(__name__)

UNDER_WAY_MAX: Final = 1_000
"""Messages that the broker may have sent without an acknowledgement (Receive Maximum)."""
SESSION_S: Final = 7 * 86_400
"""How long the broker keeps the session of a bridge that is away."""
_RECONNECT_S: Final = (1, 30)
_KEEP_ALIVE_S: Final = 30
_REFUSED: Final = 128
"""Reason codes from here on are failures (MQTT 5, section 2.4)."""


@dataclass(frozen=True, slots=True)
class MqttMessage:
    """A message, and the connection that it came by."""

    topic: str
    payload: bytes
    qos: int
    mid: int
    connection: int
    """An acknowledgement is of the connection of its message: another one may use the number for another message."""
    traceparent: bytes | None = None


class MqttClient:
    """A client with a session of its own; `start` once, `stop` at the end. Callbacks are made in the event loop."""

    def __init__(
        self,
        settings: Settings,
        address: Address,
        filters: Sequence[str],
        *,
        client_id: str,
        is_mqtt5: bool,
        bytes_max: int,
        on_message: Callable[[MqttMessage], None],
    ) -> None:
        """`bytes_max`: of a packet (with MQTT 5 the broker keeps larger ones to itself).

        Raises:
            UsageError: paho-mqtt is not installed, or a file of TLS cannot be used.

        """
        try:
            from paho.mqtt import client as paho
            from paho.mqtt.enums import CallbackAPIVersion
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties
        except ImportError:
            raise UsageError("streams bridge mqtt needs paho-mqtt: pip install 'logistics-streams[mqtt]'") from None
        self._settings, self._address, self._filters = settings, address, list(filters)
        self._on_message, self._client_id = on_message, client_id
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection = 0
        self._is_refused = False
        """Whether the broker refused the last connection: that reason is more useful than the closing that follows."""
        self.why_not = "not connected yet"
        """Why no messages come; empty: they do."""
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=paho.MQTTv5 if is_mqtt5 else paho.MQTTv311,
            clean_session=None if is_mqtt5 else False,
            manual_ack=True,
        )
        self._client.reconnect_delay_set(*_RECONNECT_S)
        if address.is_tls:
            self._client.tls_set_context(_tls(settings))
        self._client.on_pre_connect = self._with_credentials
        self._client.on_connect = self._connected
        self._client.on_connect_fail = self._not_reached
        self._client.on_disconnect = self._disconnected
        self._client.on_subscribe = self._subscribed
        self._client.on_message = self._arrived
        self._properties: Any = None
        if is_mqtt5:
            properties: Any = Properties  # without annotations
            self._properties = properties(PacketTypes.CONNECT)
            self._properties.SessionExpiryInterval = SESSION_S
            self._properties.ReceiveMaximum = UNDER_WAY_MAX
            self._properties.MaximumPacketSize = bytes_max

    def start(self) -> None:
        """Connect, and again whenever the connection is lost, until `stop`."""
        self._loop = asyncio.get_running_loop()
        options: dict[str, Any] = {}
        if self._properties is not None:
            options = {"clean_start": False, "properties": self._properties}
        self._client.connect_async(self._address.host, self._address.port, keepalive=_KEEP_ALIVE_S, **options)
        self._client.loop_start()

    def acknowledge(self, message: MqttMessage) -> None:
        """Acknowledge a message; does nothing if its connection is over, since the broker sends it again."""
        if message.qos > 0 and message.connection == self._connection:
            self._client.ack(message.mid, message.qos)

    def stop(self) -> None:
        """Disconnect; the session and its unacknowledged messages stay at the broker."""
        self._connection += 1
        self._client.disconnect()
        self._client.loop_stop()

    # --- in paho's thread -------------------------------------------------------------------------------------------

    def _in_loop(self, call: Callable[..., None], *given: Any) -> None:
        assert self._loop is not None  # noqa: S101 - `start` was called
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *given)

    def _with_credentials(self, *_: Any) -> None:
        """Set the current password: its file may have changed since the last connection."""
        if self._settings.streams_mqtt_username is not None:
            self._client.username_pw_set(
                self._settings.streams_mqtt_username, self._settings.secret("STREAMS_MQTT_PASSWORD")
            )

    def _connected(self, client: Any, _: Any, flags: Any, reason: Any, __: Any) -> None:
        self._is_refused = reason.is_failure
        if reason.is_failure:
            self._in_loop(self._say, f"{self._address} refuses the connection: {reason}")
            return
        self._connection += 1
        log.info("connected", broker=str(self._address), client=self._client_id, session=bool(flags.session_present))
        client.subscribe([(one, 1) for one in self._filters])

    def _subscribed(self, _: Any, __: Any, ___: Any, reasons: Sequence[Any], ____: Any) -> None:
        refused = [
            f"{one} ({reason})" for one, reason in zip(self._filters, reasons, strict=False) if reason.value >= _REFUSED
        ]
        words = f"{self._address} refuses the subscription: {', '.join(refused)}" if refused else ""
        self._in_loop(self._say, words)

    def _not_reached(self, *_: Any) -> None:
        self._in_loop(self._say, f"{self._address} does not answer")

    def _disconnected(self, _: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
        self._connection += 1
        if self._is_refused:
            return
        words = f"the connection to {self._address} is lost: {reason}"
        if getattr(reason, "value", 0) == _TAKEN_OVER:
            words = f"another client connects to {self._address} as {self._client_id}: give each its own --client-id"
        self._in_loop(self._say, words)

    def _arrived(self, _: Any, __: Any, found: Any) -> None:
        message = MqttMessage(
            found.topic, bytes(found.payload), found.qos, found.mid, self._connection, _traceparent(found)
        )
        self._in_loop(self._on_message, message)

    # --- in the event loop ------------------------------------------------------------------------------------------

    def _say(self, why: str) -> None:
        if why and why != self.why_not:
            log.warning("no messages come", why=why)
        elif not why and self.why_not:
            log.info("subscribed", broker=str(self._address), topics=self._filters)
        self.why_not = why


_TAKEN_OVER: Final = 0x8E
"""Reason code `Session taken over`."""


def _tls(settings: Settings) -> ssl.SSLContext:
    try:
        ca = settings.streams_mqtt_ca_location
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        if settings.streams_mqtt_certificate_location is not None:
            context.load_cert_chain(settings.streams_mqtt_certificate_location, settings.streams_mqtt_key_location)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"STREAMS_MQTT_*_LOCATION cannot be used: {error}") from None
    return context


def _traceparent(message: Any) -> bytes | None:
    """The W3C trace context among the user properties (MQTT 5)."""
    for name, value in getattr(message.properties, "UserProperty", None) or ():
        if name == "traceparent":
            return str(value).encode(errors="replace")
    return None
