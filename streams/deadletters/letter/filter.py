"""Selects dead letters: the filter that commands and pages make from a user's options."""

from dataclasses import dataclass, replace

from streams.deadletters.letter.pin import Pin


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects letters; an empty part selects all. Times are the records', in milliseconds, the end excluded."""

    ids: frozenset[str] = frozenset()
    """Whole ids, or prefixes of ids."""
    reasons: frozenset[str] = frozenset()
    keys: frozenset[bytes] = frozenset()
    """Keys of the records: devices, or orders."""
    schema_ids: frozenset[int] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    is_open: bool | None = None
    pin: Pin | None = None
    """Only letters that existed at that moment."""

    def opened(self) -> "Filter":
        """Return those of these letters that are open."""
        return replace(self, is_open=True)

    def pinned(self, pin: Pin) -> "Filter":
        """Those of these letters that existed at the pin."""
        return replace(self, pin=pin)

    @property
    def narrows(self) -> bool:
        """Whether it excludes anything."""
        return self != Filter()
