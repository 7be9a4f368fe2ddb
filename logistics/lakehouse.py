"""The logistics flows with sinks of both kinds: rows of vehicles in PostgreSQL, their minutes in a Delta table.

`STREAMS_APP=logistics.lakehouse`, as with `logistics.warehouse`. `streams demo --with-sinks` runs it.
"""

from logistics.flows import dispatch, gps, orders, tracking
from streams import delta, postgres

VEHICLES = postgres("vehicles", topic="vehicles.state.v1")
MINUTES = delta("minutes", topic="vehicles.minutes.v1", day_of="window_start")

positions = gps.flow.with_sinks(VEHICLES, MINUTES)
events = orders.flow
steps = dispatch.flow
tracked = tracking.flow
