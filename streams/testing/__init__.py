"""Tests of flows without a broker: `FlowDriver` runs a flow's production engine, committer and restore in memory.

    driver = FlowDriver(flow, schemas=Path("schemas"))
    driver.feed({"event_id": "a1", "sensor_id": "dock-1", "sequence": 1, "event_time": 1_700_000_000_000})
    driver.advance("20s")
    assert driver.table("doors.state.v1")["dock-1"]["events"] == 1

Use it for what is yours: the declaration, folds and functions. The guarantees (exactly once, order, restore) are tested
with the library.
"""

from streams.testing.driver import Crash, DeadLetter, FlowDriver, Record

__all__ = ["Crash", "DeadLetter", "FlowDriver", "Record"]
