"""The bounds of a flow that decide its results, with their defaults.

They belong to the declaration. A variable of the environment that is set overrides one of them for a deployment.
"""

from dataclasses import dataclass
from typing import Final

LATENESS_MS_DEFAULT: Final = 5_000
HORIZON_MS_DEFAULT: Final = 86_400_000
SKEW_MS_MAX_DEFAULT: Final = 60_000
IDLE_MS_DEFAULT: Final = 10_000
QUARANTINE_REJECTS_DEFAULT: Final = 100
QUARANTINE_COOLDOWN_MS_DEFAULT: Final = 60_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """What decides, beside the fields and folds, which event is clean, late, a duplicate or a dead letter."""

    lateness_ms: int = LATENESS_MS_DEFAULT
    """Out-of-orderness bound: how far the watermark is behind the newest event. `STREAMS_LATENESS_MS` overrides it."""
    horizon_ms: int = HORIZON_MS_DEFAULT
    """For how long, in event time, ids are remembered. `STREAMS_DEDUP_HORIZON_MS` overrides it."""
    skew_ms_max: int = SKEW_MS_MAX_DEFAULT
    """How far an event time may be ahead of the record's timestamp. `STREAMS_SKEW_MS_MAX` overrides it."""
    idle_ms: int = IDLE_MS_DEFAULT
    """A partition without records for so long moves on by the clock. `STREAMS_IDLE_MS` overrides it."""
    quarantine_rejects: int = QUARANTINE_REJECTS_DEFAULT
    """Rejects of a key within a minute beyond which it is quarantined; 0: none is. `STREAMS_QUARANTINE_REJECTS`."""
    quarantine_cooldown_ms: int = QUARANTINE_COOLDOWN_MS_DEFAULT
    """How long a key is quarantined. `STREAMS_QUARANTINE_COOLDOWN_MS` overrides it."""

    def __post_init__(self) -> None:
        if self.horizon_ms < self.lateness_ms:
            raise ValueError(
                f"ids are remembered for {self.horizon_ms} ms, which is shorter than the out-of-orderness bound of "
                f"{self.lateness_ms} ms"
            )

    def by_setting(self) -> dict[str, int]:
        """The values by the name of the setting that overrides each."""
        return {
            "streams_lateness_ms": self.lateness_ms,
            "streams_dedup_horizon_ms": self.horizon_ms,
            "streams_skew_ms_max": self.skew_ms_max,
            "streams_idle_ms": self.idle_ms,
            "streams_quarantine_rejects": self.quarantine_rejects,
            "streams_quarantine_cooldown_ms": self.quarantine_cooldown_ms,
        }


BOUNDS_DEFAULT: Final = Bounds()
