"""Options of `streams dlq`: which dead letters a command is about, and who runs it."""

import datetime as dt
import getpass
import re
import uuid
from dataclasses import dataclass, replace
from typing import Annotated, Final

import typer

from streams.cli.shared_options import given_by
from streams.deadletters.letter.audit import Actor
from streams.deadletters.letter.filter import Filter
from streams.deadletters.letter.pin import pin_of
from streams.errors import UsageError

UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

TopicOption = Annotated[
    list[str] | None,
    typer.Option(
        "--topic", metavar="TOPIC", help="Dead-letter topic, or the source it belongs to; repeatable. Default: all."
    ),
]
ReasonOption = Annotated[
    list[str] | None, typer.Option("--reason", help="Rejected for this reason; repeatable.", metavar="REASON")
]
DeviceOption = Annotated[
    list[str] | None, typer.Option("--device", help="Key of the record: device or order; repeatable.", metavar="KEY")
]
SchemaOption = Annotated[
    list[int] | None, typer.Option("--schema-id", help="Schema id that the envelope names; repeatable.", metavar="ID")
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="From this time on: ISO 8601, or an age such as 90s, 15m, 2h, 7d, 1w."
    ),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before this time: as --since.")]
PinOption = Annotated[
    str | None,
    typer.Option(
        "--pin",
        metavar="PIN",
        help="Only letters that existed at the dry run that printed this; later ones are left.",
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="All open letters, without ids or filters.")]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Your name, for the audit. Default: the user's name.")
]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of letters, or prefixes of ids.")]


@dataclass(frozen=True, slots=True)
class Filters:
    """Options that filter letters."""

    topics: list[str] | None
    reasons: list[str] | None
    devices: list[str] | None
    schema_ids: list[int] | None
    since: str | None
    until: str | None

    def filter(self, *, is_open: bool | None = None) -> Filter:
        """The selected letters.

        Raises:
            UsageError: a time is none.

        """
        return Filter(
            reasons=frozenset(self.reasons or ()),
            keys=frozenset(device.encode() for device in self.devices or ()),
            schema_ids=frozenset(self.schema_ids or ()),
            since_ms=None if self.since is None else time_ms("--since", self.since),
            until_ms=None if self.until is None else time_ms("--until", self.until),
            is_open=is_open,
        )


def filters(
    topic: TopicOption = None,
    reason: ReasonOption = None,
    device: DeviceOption = None,
    schema_id: SchemaOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
) -> Filters:
    """Options that filter letters."""
    return Filters(topic, reason, device, schema_id, since, until)


@dataclass(frozen=True, slots=True)
class Choice:
    """The selection of letters for an action, and who acts."""

    filters: Filters
    ids: list[str] | None
    limit: int | None
    by: str | None
    pin: str | None
    everything: bool

    def filter(self) -> Filter:
        """The selected letters.

        Raises:
            UsageError: an id, a time or a pin is none.

        """
        for letter_id in self.ids or ():
            if not re.fullmatch("[0-9a-f]{6,24}", letter_id):
                raise UsageError(f"{letter_id!r} is not an id: 24 hexadecimal digits, or at least the first 6 of them")
        try:
            pinned = None if self.pin is None else pin_of(self.pin)
        except ValueError as error:
            raise UsageError(f"--pin: {error}") from None
        return replace(self.filters.filter(), ids=frozenset(self.ids or ()), pin=pinned)

    def insisted(self, wanted: Filter) -> Filter:
        """The filter, if it restricts anything or all letters are selected.

        Raises:
            UsageError: neither is so.

        """
        if not (wanted.narrows or self.everything):
            raise UsageError("select dead letters: by id, by a filter, or with --all")
        return wanted


@given_by(filters)
def choice(
    narrowed: Filters,
    ids: IdsArgument = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.")] = None,
    by: ByOption = None,
    pin: PinOption = None,
    *,
    everything: AllOption = False,
) -> Choice:
    """Options of a command that acts on letters."""
    return Choice(narrowed, ids, limit, by, pin, everything)


def time_ms(option: str, text: str) -> int:
    """A time of the command line, ISO 8601 or an age, in milliseconds.

    Raises:
        UsageError: it is neither.

    """
    now = dt.datetime.now(dt.UTC)
    age = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    try:
        if age:
            moment = now - dt.timedelta(seconds=int(age[1]) * UNITS_S[age[2]])
        else:
            moment = dt.datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        return max(0, int(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {text}: must be ISO 8601 (2026-05-01T08:00, UTC) or an age such as 2h") from None


def actor_of(by: str | None, why: str) -> Actor:
    """Who acts, for the audit; `by` None: the user who runs the command.

    Raises:
        UsageError: the user has no name, or it cannot be written down.

    """
    try:
        name = by or getpass.getuser()
    except (KeyError, OSError):
        raise UsageError("who are you? This machine does not know: say it with --by") from None
    try:
        return Actor(name, why.strip(), uuid.uuid4().hex[:12])
    except ValueError as error:
        raise UsageError(str(error)) from None
