"""Which dead letters are meant: the filter that commands and pages make from what a user asks for."""

from dataclasses import dataclass, replace

from streams.deadletters.letter.pin import Pin


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; an empty part says nothing. Times are the records', milliseconds, the end excluded."""

    ids: frozenset[str] = frozenset()
    """Whole ids, or beginnings of them."""
    reasons: frozenset[str] = frozenset()
    keys: frozenset[bytes] = frozenset()
    """Keys of the records: the devices, or orders."""
    schema_ids: frozenset[int] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    is_open: bool | None = None
    pin: Pin | None = None
    """Only what was there by then."""

    def opened(self) -> "Filter":
        """Of these letters the open ones."""
        return replace(self, is_open=True)

    def pinned(self, pin: Pin) -> "Filter":
        """Of these letters those that were there by then."""
        return replace(self, pin=pin)

    @property
    def narrows(self) -> bool:
        """Whether it leaves anything out."""
        return self != Filter()
