"""The fleet page as a part of the monitor's web application, where the app in force declares a map."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from streams.deadletters.web.steward import Steward
from streams.fleet.app import PAGE, FleetWeb
from streams.fleet.feeds import bound_map
from streams.fleet.service import FleetService
from streams.flow.declaration import Pipeline
from streams.flow.discover import declared_map
from streams.monitor.web.app import Panel
from streams.schemas.catalog import Catalog
from streams.settings import Settings

PATH: Final = "/fleet"


def fleet_panels(settings: Settings, flows: Sequence[Pipeline], steward: Steward) -> list[Panel]:
    """The page; none where no map is declared.

    Raises:
        UsageError: the declaration contradicts the flows or their schemas.

    """
    declared = declared_map(prefix=settings.streams_topic_prefix)
    if declared is None:
        return []
    service = FleetService(settings, bound_map(declared, flows, Catalog.load()))
    web = FleetWeb(settings, service, steward)
    metrics = CollectorRegistry()
    metrics.register(FleetCollector(service))
    return [Panel(PATH, PAGE, web.app, metrics=lambda: generate_latest(metrics), stop=web.end)]


class FleetCollector(Collector):
    """Metrics of the page."""

    def __init__(self, service: FleetService) -> None:
        self._service = service

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        """What is known now; nothing is asked of Kafka."""
        viewers = GaugeMetricFamily("streams_fleet_viewers", "Browsers that show the fleet page.")
        vehicles = GaugeMetricFamily("streams_fleet_vehicles", "Vehicles on the fleet page.")
        records = CounterMetricFamily("streams_fleet_records", "Records read for the fleet page.", labels=["topic"])
        rejects = CounterMetricFamily(
            "streams_fleet_rejects", "Records that the fleet page could not read.", labels=["topic"]
        )
        viewers.add_metric([], self._service.viewers)
        picture = self._service.known()
        vehicles.add_metric([], 0 if picture is None else len(picture.vehicles))
        if picture is not None:
            with picture.lock:
                read, refused = dict(picture.reading.records), dict(picture.reading.rejects)
            for topic, count in read.items():
                records.add_metric([topic], count)
                rejects.add_metric([topic], refused.get(topic, 0))
        return [viewers, vehicles, records, rejects]
