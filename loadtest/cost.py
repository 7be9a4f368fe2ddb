"""What CPU time costs, in a currency, with as many digits as it takes to see it."""

import math
from dataclasses import dataclass
from typing import Final

DIGITS: Final = 3
"""Significant ones; a million events may cost a thousandth of a cent."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What is paid for a core for an hour."""

    core_hour: float = 0.04
    currency: str = "USD"

    def of(self, core_seconds: float) -> float:
        """Return the price of so many seconds of one core."""
        return core_seconds / 3600 * self.core_hour

    def shown(self, cost: float) -> str:
        """The cost with its currency: `0.0000213 USD`, `1.23 USD`."""
        places = 2 if cost <= 0 else max(2, DIGITS - 1 - math.floor(math.log10(cost)))
        return f"{cost:,.{places}f} {self.currency}"
