"""Metrics of a bridge, beside those that it has in common with the gateway. Names are a contract with dashboards."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

ACKNOWLEDGED: Final = "acknowledged"
DROPPED: Final = "dropped"
UNKEEPABLE: Final = "unkeepable"
OUTCOMES: Final = (ACKNOWLEDGED, DROPPED, UNKEEPABLE)


class BridgeMetrics:
    """Metrics of one bridge."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.messages = Counter(
            "streams_bridge_messages",
            "MQTT messages by outcome: acknowledged (events or dead letters are in Kafka), dropped (QoS 0, with too "
            "much under way), unkeepable (no event, and too large for a dead letter).",
            ("outcome",),
            registry=registry,
        )
        for outcome in OUTCOMES:
            self.messages.labels(outcome)
        self.connected = Gauge(
            "streams_bridge_connected", "1 while the MQTT broker has accepted the subscriptions.", registry=registry
        )
        self.under_way = Gauge(
            "streams_bridge_messages_under_way", "Messages that Kafka has not acknowledged yet.", registry=registry
        )
