"""One rate that was sent for a while: what came of it, in figures for a report.

Nothing in it is what was asked for, except the field that says so.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from loadtest.histograms import added, encoded, percentiles_ms
from loadtest.stage import OpenLoop
from loadtest.statistics import Slope, is_clear, is_sustained
from loadtest.visible import Group


def stored_name(group: Group) -> str:
    """Name of a histogram of latencies in the report."""
    return f"latency_{group}"


USUAL: Final = stored_name(Group.USUAL)


@dataclass(frozen=True, slots=True)
class Trial:
    """Rates are events per second over the measured stretch."""

    rate_asked: float
    publish_rate: float
    """By how much the topic grew."""
    consume_rate: float
    """From the first to the last commit."""
    lag_slope: Slope | None
    lag_max: int
    share: float | None = None
    """Rate of this trial as a share of the sustainable rate."""
    counted: int | None = None
    """Measured records that have become visible; None where nobody looked."""
    due: int = 0
    """Number of measured records that had to become visible."""
    latency_ms: dict[str, float] = field(default_factory=dict)
    """From the time at which a record was to be sent until it is visible: clean, of devices whose clocks are right."""
    latency_skewed_ms: dict[str, float] = field(default_factory=dict)
    """The same latency, for events of devices with wrong clocks."""
    latency_late_ms: dict[str, float] = field(default_factory=dict)
    """The same latency, for events in the late topic."""
    publish_delay_ms: dict[str, float] = field(default_factory=dict)
    """From the time at which a record was to be sent until it was given to the producer."""
    histograms: dict[str, str] = field(default_factory=dict)
    """HdrHistogram V2 in base64, milliseconds, by name."""

    @staticmethod
    def of(loop: OpenLoop, share: float | None = None) -> "Trial":
        """What an open loop that has ended has shown."""
        publish = added(loop.sent.publish_delays if loop.sent else ())
        visible = loop.measured.histograms if loop.measured is not None else {}
        latencies = {group: percentiles_ms(histogram) for group, histogram in visible.items()}
        stored = {stored_name(group): encoded(each) for group, each in visible.items() if each.get_total_count()}
        if publish.get_total_count():
            stored["publish_delay"] = encoded(publish)
        return Trial(
            rate_asked=loop.rate,
            publish_rate=loop.series.arrival_rate(),
            consume_rate=loop.series.rate(),
            lag_slope=loop.series.lag_slope(),
            lag_max=loop.series.lag_max(),
            share=share,
            counted=None if loop.measured is None else loop.counted,
            due=loop.due,
            latency_ms=latencies.get(Group.USUAL, {}),
            latency_skewed_ms=latencies.get(Group.SKEWED, {}),
            latency_late_ms=latencies.get(Group.LATE, {}),
            publish_delay_ms=percentiles_ms(publish),
            histograms=stored,
        )

    @property
    def is_sustained(self) -> bool:
        """Whether lag grew by no more than 1% of what was sent."""
        return is_sustained(self.lag_slope, self.publish_rate)

    @property
    def is_complete(self) -> bool:
        """Whether every measured record became visible."""
        return self.counted is None or self.counted >= self.due

    def words(self) -> str:
        """`2,065 events/s (2,500 asked for): not sustained, lag grows by 431/s (402 to 460)`."""
        asked = f" ({self.rate_asked:,.0f} asked for)" if abs(self.publish_rate / self.rate_asked - 1) > 0.01 else ""
        verdict = "sustained" if self.is_sustained else "not sustained"
        if self.lag_slope is not None and not is_clear(self.lag_slope, self.publish_rate):
            verdict = f"undecided, rather {verdict}"
        if self.lag_slope is None:
            trend = "too few samples to tell how lag goes"
        else:
            at = self.lag_slope
            trend = f"lag changes by {at.per_s:+,.0f}/s ({at.low:+,.0f} to {at.high:+,.0f})"
        consumed = "" if self.is_sustained else f", {self.consume_rate:,.0f} events/s were consumed"
        return f"{self.publish_rate:,.0f} events/s{asked}: {verdict}, {trend}{consumed}"

    def counted_words(self) -> str:
        """`counted 120,000 of 120,000 due`; empty where nobody looked."""
        return "" if self.counted is None else f"counted {self.counted:,} of {self.due:,} due"

    def as_dict(self) -> dict[str, Any]:
        """For the report's JSON."""
        return {
            "rate_asked": round(self.rate_asked, 1),
            "share": self.share,
            "publish_rate": round(self.publish_rate, 1),
            "consume_rate": round(self.consume_rate, 1),
            "lag_slope": None if self.lag_slope is None else self.lag_slope.as_dict(),
            "sustained": self.is_sustained,
            "sustained_is_clear": is_clear(self.lag_slope, self.publish_rate),
            "lag_max": self.lag_max,
            "counted": self.counted,
            "due": self.due if self.counted is not None else None,
            "latency_ms": self.latency_ms or None,
            "latency_skewed_ms": self.latency_skewed_ms or None,
            "latency_late_ms": self.latency_late_ms or None,
            "publish_delay_ms": self.publish_delay_ms or None,
            "histograms": self.histograms,
        }
