"""Dead letters of one vehicle, as the review page counts them."""

from typing import Any, Final

from streams.deadletters.letter.filter import Filter
from streams.deadletters.web.steward import Steward

LETTERS_SHOWN: Final = 5


def letters_of(steward: Steward, vehicle: str) -> dict[str, Any]:
    """The number of letters, the number of open ones, and the newest ones.

    Raises:
        StreamsError: they cannot be read now.

    """
    wanted = Filter(keys=frozenset({vehicle.encode(errors="replace")}))
    found, _ = steward.listing(wanted, group_by="reason", limit=LETTERS_SHOWN, skip=0)
    return {
        "total": found.total,
        "open": found.open,
        "reasons": [{"reason": name, "letters": number} for name, number, _ in found.groups],
        "newest": [
            {"id": one.letter.id, "reason": one.letter.reason, "time": one.letter.first_failed_at, "status": one.status}
            for one in found.entries
        ],
    }
