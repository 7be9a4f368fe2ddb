"""Asks the monitor for the lag of each consumer group, and its verdict."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streams.local.ports import HOST

TIMEOUT_S: Final = 2.0
ASK_S: Final = 2.0
"""It looks every five seconds."""


@dataclass(frozen=True, slots=True)
class GroupReading:
    """One group, as the monitor has it."""

    lag: int
    status: str
    """OK, WARN, ERR, STOP, STALL or REWIND."""


@dataclass(frozen=True, slots=True)
class MonitorReading:
    """The monitor's newest round."""

    groups: Mapping[str, GroupReading] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    """Sources that the monitor considers silent."""


class MonitorProbe:
    """Reads `/api/overview`, at most every two seconds."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._asked_s: float | None = None
        self._newest = MonitorReading()

    def sample(self, now_s: float) -> MonitorReading:
        """The newest answer; one that fails changes nothing."""
        if self._asked_s is None or now_s - self._asked_s >= ASK_S:
            self._asked_s = now_s
            self._newest = self._ask() or self._newest
        return self._newest

    def _ask(self) -> MonitorReading | None:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/api/overview")
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                return None
            told: Any = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        return MonitorReading(
            {one["group"]: GroupReading(one["lag"], one["status"]) for one in told["groups"]},
            tuple(one["source"] for one in told["sources"] if one["silent"]),
        )
