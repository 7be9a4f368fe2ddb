"""A second opinion on a table's fold: an aggregate may name one as its attribute `reference`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from streams.reconcile.model.events import Event, Fields

Symbols = Mapping[str, Sequence[str]]
"""Symbols of each field that is an enum, by the name of the field."""


class ReferenceFold(Protocol):
    """The row of one key. Made with the key; plain Python, one event at a time."""

    slack: ClassVar[Mapping[str, tuple[float, float]]]
    """By column: how far a number may be off, and which share of itself, where arithmetic need not agree to the bit."""

    def add(self, event: Any) -> None:
        """Fold the next clean event: its fields are attributes, an enum's is the symbol."""

    def row(self) -> dict[str, Any]:
        """The row so far, times in milliseconds."""


class NamedEvent:
    """An event with the source's fields as attributes, and `event_time_ms`."""

    def __init__(self, event: Event, fields: Fields, symbols: Symbols) -> None:
        self.event_id = event.event_id
        self.event_time_ms = event.event_time_ms
        self.sequence = event.sequence
        values: dict[str, Any] = dict(zip(fields.texts, event.texts, strict=True))
        for name, number in zip(fields.numbers, event.numbers, strict=True):
            its = symbols.get(name)
            values[name] = number if its is None or number is None else its[int(number)]
        self._values = values

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None
