"""Decides when to send which message: about what is new, has changed, is over, or goes on. Pure: time is an argument.

A problem is told once it has lasted for `wait_s`, and everything else that is untold by then is in the same message;
it is told again where it becomes another one, or after `repeat_s`. Its end is told once it has been gone for `wait_s`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from streams.monitor.notify.problems import Problem


@dataclass(frozen=True, slots=True)
class Message:
    """A message for one target. `problems`: everything that is wrong and lasts; `resolved`: what is over."""

    problems: tuple[Problem, ...]
    resolved: tuple[Problem, ...]
    news: frozenset[str]
    """Keys of problems that are new or have changed since the last message; empty: this is a reminder."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is wrong any more."""
        return not self.problems


@dataclass(slots=True)
class _Kept:
    problem: Problem
    since_s: float
    """Time since which it has been in this state."""
    seen_s: float
    told: Problem | None = None
    told_s: float = 0.0


class Ledger:
    """What one target was told. Call `due`, then `sent` once the message is out."""

    def __init__(self, *, wait_s: float, repeat_s: float) -> None:
        self._wait_s = wait_s
        self._repeat_s = repeat_s
        self._kept: dict[str, _Kept] = {}

    def due(self, problems: Mapping[str, Problem], now_s: float) -> Message | None:
        """The message to send at `now_s` about these problems; None: none is due."""
        self._note(problems, now_s)
        there = [one for key, one in self._kept.items() if key in problems]
        untold = [one for one in there if one.told is None or one.told.state != one.problem.state]
        gone = [
            one
            for key, one in self._kept.items()
            if key not in problems and one.told is not None and now_s - one.seen_s >= self._wait_s
        ]
        is_time = any(now_s - one.since_s >= self._wait_s for one in untold)
        is_repeat = any(one.told is not None and now_s - one.told_s >= self._repeat_s for one in there)
        if not is_time and not is_repeat and not gone:
            return None
        news = frozenset(one.problem.key for one in untold) if is_time else frozenset()
        told = [one.problem for one in there if one.told is not None or one.problem.key in news]
        resolved = tuple(one.told for one in gone if one.told is not None)
        return Message(tuple(sorted(told, key=lambda one: (one.is_warning, one.key))), resolved, news)

    def sent(self, message: Message, now_s: float) -> None:
        """Record that the message was sent."""
        for problem in message.problems:
            if (kept := self._kept.get(problem.key)) is not None:
                kept.told, kept.told_s = problem, now_s
        for problem in message.resolved:
            self._kept.pop(problem.key, None)

    def _note(self, problems: Mapping[str, Problem], now_s: float) -> None:
        for key, problem in problems.items():
            kept = self._kept.get(key)
            if kept is None:
                self._kept[key] = _Kept(problem, now_s, now_s)
                continue
            if kept.problem.state != problem.state:
                kept.since_s = now_s
            kept.problem, kept.seen_s = problem, now_s
        for key in [key for key, one in self._kept.items() if key not in problems and one.told is None]:
            del self._kept[key]
