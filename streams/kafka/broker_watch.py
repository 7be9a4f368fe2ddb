"""Notices Kafka clients that will never connect again.

A broker that is going down may answer a metadata request with the topics and without a single broker. librdkafka then
drops every broker it knows, and a race within it decides whether it begins again at its bootstrap servers or never
connects to anything any more, without a word (librdkafka#5301; 2.10 up to 2.16 at least; docs/adr/0013).
"""

import json
from typing import Any, Final

STATISTICS_INTERVAL_MS: Final = 5_000
_LOOKS: Final = 2
"""Checks in a row without a broker: starting over at the bootstrap servers takes less than the interval between two."""
_REAL: Final = frozenset({"configured", "learned"})
"""Sources of brokers that have an address; the client's internal broker and its coordinators have none."""


class BrokerWatch:
    """Checks by its statistics whether one client still knows any broker.

    Use it for clients that are polled all the time, since statistics that are not polled pile up. Other clients are
    re-created when they get no answers.
    """

    def __init__(self) -> None:
        self._without = 0

    @property
    def is_stranded(self) -> bool:
        """Whether the client will never connect again: create another one."""
        return self._without >= _LOOKS

    def config(self) -> dict[str, Any]:
        """Options to add to the client's configuration."""
        return {"statistics.interval.ms": STATISTICS_INTERVAL_MS, "stats_cb": self.note}

    def note(self, statistics: str) -> None:
        """Evaluate one statistics message of the client (STATISTICS.md of librdkafka)."""
        brokers = json.loads(statistics).get("brokers", {}).values()
        self._without = 0 if any(broker["source"] in _REAL for broker in brokers) else self._without + 1
