"""The logistics flows with sinks: rows of their tables and windows, copied into PostgreSQL.

`STREAMS_APP=logistics.warehouse` for `streams topics apply`, `streams sink NAME` and `streams flows list`. Workers may
run this app or `logistics`: what they do is the same.
"""

from logistics.flows import dispatch, fleet, gps, orders, tracking
from streams import postgres

positions = gps.flow.with_sinks(
    postgres("vehicles", topic="vehicles.state.v1"),
    postgres("vehicle_minutes", topic="vehicles.minutes.v1"),
    postgres("vehicle_trips", topic="vehicles.trips.v1"),
)
events = orders.flow.with_sinks(postgres("orders", topic="orders.state.v1"))
steps = dispatch.flow
tracked = tracking.flow
shown = fleet.fleet
