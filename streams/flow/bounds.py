"""The bounds of a flow that decide its results, with their defaults.

They belong to the declaration. A variable of the environment that is set overrides one of them for a deployment. Those
in force are recorded with the state (`state.identity`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from streams.settings import Settings
from streams.state.identity import Consequences, SettingsByName

LATENESS_MS_DEFAULT: Final = 5_000
HORIZON_MS_DEFAULT: Final = 86_400_000
SKEW_MS_MAX_DEFAULT: Final = 60_000
IDLE_MS_DEFAULT: Final = 10_000
QUARANTINE_REJECTS_DEFAULT: Final = 100
QUARANTINE_COOLDOWN_MS_DEFAULT: Final = 60_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds that, with fields and folds, decide which events are clean, late, duplicates or dead letters."""

    lateness_ms: int = LATENESS_MS_DEFAULT
    """Out-of-orderness bound: newest event less watermark. `STREAMS_LATENESS_MS` overrides it."""
    horizon_ms: int = HORIZON_MS_DEFAULT
    """For how long, in event time, ids are remembered. `STREAMS_DEDUP_HORIZON_MS` overrides it."""
    skew_ms_max: int = SKEW_MS_MAX_DEFAULT
    """How far an event time may be ahead of the record's timestamp. `STREAMS_SKEW_MS_MAX` overrides it."""
    idle_ms: int = IDLE_MS_DEFAULT
    """How long a partition may have no records before it advances by the clock. `STREAMS_IDLE_MS` overrides it."""
    quarantine_rejects: int = QUARANTINE_REJECTS_DEFAULT
    """Rejects of a key within a minute after which it is quarantined; 0: never.

    `STREAMS_QUARANTINE_REJECTS` overrides it.
    """
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
        return {setting: getattr(self, name) for name, setting in _SETTINGS.items()}

    def under(self, settings: Settings) -> "Bounds":
        """The bounds in force: the declared ones, overridden by the settings that are set.

        Raises:
            UsageError: what is set and what the flow declares contradict each other.

        """
        found = settings.for_flow(self.by_setting())
        return Bounds(**{name: getattr(found, setting) for name, setting in _SETTINGS.items()})

    @property
    def recorded(self) -> dict[str, int]:
        """Bounds that belong to the state's identity and that no operator records (`OperatorSpec.bounds`), by name."""
        return {"lateness_ms": self.lateness_ms, "skew_ms_max": self.skew_ms_max, "idle_ms": self.idle_ms}

    def judge_change(self, bounds: Mapping[str, int], settings: SettingsByName) -> Consequences:
        """What changed bounds mean for state that was written under other `bounds`: the state itself stays valid."""
        del settings
        what = {
            "lateness_ms": _lateness_changed(bounds.get("lateness_ms", self.lateness_ms), self.lateness_ms),
            "skew_ms_max": "from now on an event time may be so far ahead of its record's timestamp",
            "idle_ms": "from now on a partition without records for so long advances by the clock",
        }
        return Consequences(
            migrated=tuple(
                f"{name} is {now} now (was {bounds[name]}): {what[name]}"
                for name, now in self.recorded.items()
                if bounds.get(name, now) != now
            )
        )


BOUNDS_DEFAULT: Final = Bounds()
_SETTINGS: Final = {
    "lateness_ms": "streams_lateness_ms",
    "horizon_ms": "streams_dedup_horizon_ms",
    "skew_ms_max": "streams_skew_ms_max",
    "idle_ms": "streams_idle_ms",
    "quarantine_rejects": "streams_quarantine_rejects",
    "quarantine_cooldown_ms": "streams_quarantine_cooldown_ms",
}
"""Setting that overrides each bound."""


def _lateness_changed(before_ms: int, now_ms: int) -> str:
    if now_ms > before_ms:
        return "the watermark stands still until events are so far ahead of it"
    return "the watermark advances with the next event, and releases events that were held for longer"
