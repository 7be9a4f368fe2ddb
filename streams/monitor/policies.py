"""Which consumer groups are watched, and what is declared about them: settings with patterns of names. Pure.

A pattern is that of a shell (`*`, `?`, `[ab]`), for the whole name; upper and lower case differ. Several have
commas between them.
"""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final, Self

from streams.errors import UsageError
from streams.flow.durations import milliseconds
from streams.monitor.policy import Policy
from streams.settings import Settings

BATCH_S: Final = 26 * 3_600.0
"""Default expected lag of a group that runs in batches: once a day, with two hours to run in."""
ALWAYS: Final = Policy()
"""Limits of a group for which nothing is declared."""
POLICIES_MAX: Final = 100
_GRAMMAR: Final = "PATTERN=batch, PATTERN=batch:DURATION or PATTERN=commits:DURATION"


@dataclass(frozen=True, slots=True)
class GroupPolicies:
    """Which groups are watched, and by which limits each is judged."""

    allow: tuple[str, ...] = ("*",)
    deny: tuple[str, ...] = ()
    declared: tuple[tuple[str, Policy], ...] = ()
    """Pattern and policy; the first pattern that matches a group's name applies."""
    default: Policy = ALWAYS

    @classmethod
    def of(cls, settings: Settings, default: Policy | None = None) -> Self:
        """Read the settings.

        Raises:
            UsageError: STREAMS_MONITOR_GROUP_POLICIES cannot be understood.

        """
        base = default or ALWAYS
        declared = [_declared(text, base) for text in _listed(settings.streams_monitor_group_policies)]
        if len(declared) > POLICIES_MAX:
            raise UsageError(f"STREAMS_MONITOR_GROUP_POLICIES has {len(declared)} entries, and may have {POLICIES_MAX}")
        return cls(
            allow=_listed(settings.streams_monitor_groups_allow),
            deny=_listed(settings.streams_monitor_groups_deny),
            declared=tuple(declared),
            default=base,
        )

    def everything(self) -> Self:
        """The same policies, with no group left out."""
        return replace(self, allow=("*",), deny=())

    def watches(self, group: str) -> bool:
        """Whether the group is watched: allowed, and not denied."""
        return _matches(group, self.allow) and not _matches(group, self.deny)

    def policy(self, group: str) -> Policy:
        """The limits of a group."""
        return next((policy for pattern, policy in self.declared if fnmatchcase(group, pattern)), self.default)


def _matches(group: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(group, pattern) for pattern in patterns)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _declared(text: str, base: Policy) -> tuple[str, Policy]:
    pattern, equals, rule = text.rpartition("=")
    kind, colon, length = rule.strip().partition(":")
    if not equals or not pattern.strip() or kind not in {"batch", "commits"} or (kind == "commits" and not colon):
        raise UsageError(f"STREAMS_MONITOR_GROUP_POLICIES: {text!r} is none of {_GRAMMAR}")
    try:
        seconds = milliseconds(length, what=kind, least_ms=1_000) / 1000.0 if colon else BATCH_S
    except ValueError as error:
        raise UsageError(f"STREAMS_MONITOR_GROUP_POLICIES: {text!r}: {error}") from None
    changed = replace(base, batch_s=seconds) if kind == "batch" else replace(base, commits_s=seconds)
    return pattern.strip(), changed
