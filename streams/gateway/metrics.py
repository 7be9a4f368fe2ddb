"""Every metric of the gateway, in one typed list. Names are a contract with dashboards and alerts."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

OUTCOMES: Final = ("accepted", "duplicate", "rejected")
"""What becomes of a record of a request that is not refused as a whole."""
_REQUEST_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class GatewayMetrics:
    """Metrics of one process."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self.requests = Counter(
            "streams_gateway_requests", "Requests with events, by status.", ("source", "status"), registry=registry
        )
        self.events = Counter(
            "streams_gateway_events",
            "Records of requests: acknowledged by Kafka, the same as another of the request, or a dead letter.",
            ("source", "outcome"),
            registry=registry,
        )
        self.rejects = Counter(
            "streams_gateway_rejects", "Dead letters by reason.", ("source", "reason"), registry=registry
        )
        self.refusals = Counter(
            "streams_gateway_refusals",
            "Requests that were refused as a whole: unauthenticated, replayed, rate, quarantined, kafka and others.",
            ("source", "kind"),
            registry=registry,
        )
        self.unexpected_fields = Counter(
            "streams_gateway_unexpected_fields",
            "Records with a field that the schema of the source does not have; it is left out.",
            ("source", "field"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "streams_gateway_request_seconds",
            "From the headers of a request to its answer.",
            registry=registry,
            buckets=_REQUEST_SECONDS,
        )
        self.delivery_seconds = Histogram(
            "streams_gateway_delivery_seconds",
            "From handing the records of a request to the producer to Kafka's acknowledgement of all of them.",
            registry=registry,
            buckets=_REQUEST_SECONDS,
        )
        self.in_flight_records = Gauge(
            "streams_gateway_in_flight_records", "Records that Kafka has not yet acknowledged.", registry=registry
        )
        self.bodies_bytes = Gauge(
            "streams_gateway_bodies_bytes", "Bodies of requests under way, in memory.", registry=registry
        )
        self.paused_senders = Gauge(
            "streams_gateway_paused_senders",
            "Senders that have to pause after many requests with nothing usable in them.",
            ("source",),
            registry=registry,
        )
