"""What the tables must hold: the folds of `logistics.reference`, by flow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from loadtest.oracle.events import AnyEvent, Event, OrderEvent
from logistics.reference import EARTH_RADIUS_KM, STOPPED_KMH_BELOW, OrderFold, VehicleFold, haversine_km, whole_mm

__all__ = [
    "DOMAINS",
    "EARTH_RADIUS_KM",
    "STOPPED_KMH_BELOW",
    "Domain",
    "Fold",
    "OrderFold",
    "VehicleFold",
    "compare_rows",
    "haversine_km",
    "whole_mm",
]


class Fold(Protocol):
    """The row of one vehicle or order, folded from its clean events in order."""

    def add(self, event: Any) -> None:
        """Fold the next clean event."""

    def row(self) -> dict[str, Any]:
        """The table's row, times in milliseconds."""


@dataclass(frozen=True, slots=True)
class Domain:
    """What the events of a flow are, and what its table folds of them."""

    event: type[AnyEvent]
    fold: Callable[[str], Fold]


DOMAINS: Final = {"gps": Domain(Event, VehicleFold), "orders": Domain(OrderEvent, OrderFold)}
"""Which event and which fold the oracle uses, by the name of the flow."""


def compare_rows(expected: Mapping[str, Any], observed: Mapping[str, Any] | None) -> list[str]:
    """Names of the fields that differ; every field when there is no observed row.

    All fields must be equal but `odometer_km`, where two maths libraries may differ in the last bit of each leg:
    2 mm and a relative 1e-9 are allowed.
    """
    if observed is None:
        return sorted(expected)
    differing = [
        name
        for name in expected.keys() | observed.keys()
        if name != "odometer_km" and expected.get(name, _ABSENT) != observed.get(name, _ABSENT)
    ]
    if "odometer_km" not in expected:
        return sorted(differing)
    km = observed.get("odometer_km")
    if not isinstance(km, int | float) or abs(km - expected["odometer_km"]) > 2e-6 + 1e-9 * expected["odometer_km"]:
        differing.append("odometer_km")
    return sorted(differing)


_ABSENT: Final = object()
