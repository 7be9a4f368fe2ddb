"""Bounds of the fleet page."""

from typing import Final

VEHICLES_MAX: Final = 200_000
"""Vehicles on the map; further ones are counted."""
HISTORY_MS: Final = 3_600_000
"""How far back the replay goes."""
HISTORY_ROWS_MAX: Final = 4_000_000
"""Positions that are kept for that, of 24 bytes: the more vehicles, the further apart in time."""
SAMPLE_MS: Final = 5_000
"""Positions of one vehicle that are kept are at least so far apart."""
RECENT_ROWS_MAX: Final = 500_000
"""Places in the log of the newest events, of 24 bytes."""
MINUTES_ROWS_MAX: Final = 1_000_000
TRIPS_ROWS_MAX: Final = 200_000
ORDERS_MAX: Final = 200_000
"""Orders under way; further ones are counted."""
PAST_MAX: Final = 20_000
"""Deliveries, and late promises, that are kept."""
ORDERS_SHOWN_MAX: Final = 200
"""Orders at risk that the page lists."""
VIEWERS_MAX: Final = 50
"""Browsers that are served at a time."""
TICK_S: Final = 0.1
"""Minimum time between two updates of a browser."""
NEWS_S: Final = 1.0
"""Interval of counts and orders at risk, which are also the sign of life."""
STUCK_S: Final = 30.0
"""A browser that accepts nothing for this long is disconnected."""
CHUNK_VEHICLES: Final = 20_000
"""Vehicles in one message."""
REPLAY_MS_MAX: Final = 600_000
"""Stretch of the past in one answer."""
REPLAY_ROWS_MAX: Final = 400_000
"""Positions in one answer; where there are more, every n-th is left out."""
IDLE_S: Final = 900.0
"""Reading stops when nobody has looked for this long."""
BACK_RECORDS_MAX: Final = 2_000_000
"""Records of a partition that are read of the past at most when the first browser comes."""
RAW_EVENTS: Final = 5
"""Newest events of a vehicle that are shown as they are in the log."""
TRAIL_POINTS_MAX: Final = 2_000
"""Points of a vehicle's trail."""
PANEL_MINUTES: Final = 60
PANEL_ROWS: Final = 10
"""Trips, deliveries and late promises in a vehicle's panel, of each."""

assert HISTORY_ROWS_MAX * SAMPLE_MS >= HISTORY_MS * 2_000  # noqa: S101 - 2,000 vehicles in full
assert REPLAY_ROWS_MAX >= VEHICLES_MAX  # noqa: S101 - every vehicle is in an answer
