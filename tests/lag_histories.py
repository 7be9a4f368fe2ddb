"""Histories of a group in one partition, with what Burrow's rules make of each, what ours make of it, and why.

`python -m tests.lag_histories` writes the table into docs/lag-verdicts.md; a test holds it to what the code says.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from streams.kafka.round import FOREIGN, Group, Member, Round
from streams.monitor.group_lag import GroupLag
from streams.monitor.lookups import Answer
from streams.monitor.policies import ALWAYS, GroupPolicies
from streams.monitor.policy import Policy
from streams.monitor.status import Status
from streams.monitor.tracker import LagTracker
from tests.burrow_rules import Commit, burrow

INTERVAL_S: Final = 5.0
LONG_S: Final = 900.0
LONG_INTERVAL_S: Final = 20.0
"""Between two looks where they go on for longer than `LONG_S`."""
WINDOW_S: Final = 120.0
DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "lag-verdicts.md"

OfTime = Callable[[float], int]


@dataclass(frozen=True)
class History:
    """Two minutes (or more) of a partition. Times in seconds; the verdict is asked for at `until_s`.

    `end`: last stable offset by time. `commits`: (time, offset). `high`: end of the log with open transactions, where
    it differs. `owned`: whether a member has the partition, by time. `member`: its id, by time. `watched_s`: how long
    the monitor has looked by then. `policy`: that of the group. `elsewhere`: whether another member has one of
    another topic. `records_end`: behind the last record that is no marker, where it differs from `end`. `low`: first
    offset still there. `marks`: whether commits carry new metadata.
    """

    name: str
    end: OfTime
    commits: Sequence[tuple[float, int]]
    burrow: Status
    ours: Status
    why: str
    until_s: float = WINDOW_S
    high: OfTime | None = None
    owned: Callable[[float], bool | None] = lambda _: True
    records_end: OfTime | None = None
    low: OfTime = lambda _: 0
    marks: bool = False
    elsewhere: bool = False
    member: Callable[[float], str] = lambda _: "m"
    watched_s: float = 2 * WINDOW_S
    policy: Policy = ALWAYS

    def of_burrow(self) -> Status:
        """What Burrow's rules make of it."""
        return self.burrow_at(self.until_s)

    def burrow_at(self, now_s: float) -> Status:
        """What they make of it at a time."""
        high = self.high or self.end
        seen = [Commit(at, offset, max(0, high(at) - offset)) for at, offset in self.commits if at <= now_s]
        lag = max(0, high(now_s) - seen[-1].offset) if seen else 0
        return burrow(seen, lag_now=lag, now_s=now_s)

    @cached_property
    def of_ours(self) -> GroupLag:
        """What our rules make of it, through all that comes before them in the monitor."""
        interval_s = INTERVAL_S if self.watched_s <= LONG_S else LONG_INTERVAL_S
        *_, (_, told) = self.watched(interval_s)
        return told if told is not None else nothing_found()

    def watched(self, interval_s: float) -> Iterator[tuple[float, GroupLag | None]]:
        """Each look of the monitor, and what it says then."""
        book = LagTracker(GroupPolicies(default=self.policy), window_s=WINDOW_S, interval_s=interval_s)
        at = self.until_s - self.watched_s
        while at <= self.until_s:
            book.note(self._round(at))
            book.learn(
                Answer(question, None, None)
                if self.records_end is not None and question.offset >= self.records_end(at)
                else Answer(question, question.offset, self._came_ms(question.offset))
                for question in book.questions(100)
            )
            book.learn_open(
                Answer(question, question.offset, round((self.until_s - 3_600 + _EPOCH_S) * 1000))
                for question in book.open_questions(100)
            )
            yield at, book.judge().get("g")
            at += interval_s

    def _came_ms(self, offset: int) -> int:
        """When the record at `offset` came: the first moment at which the log was longer."""
        low, high = -36_000.0, self.until_s
        while high - low > 0.01:
            middle = (low + high) / 2
            low, high = (middle, high) if self.end(middle) <= offset else (low, middle)
        return round((high + _EPOCH_S) * 1000)

    def _round(self, at: float) -> Round:
        known = [offset for time, offset in self.commits if time <= at]
        owned = self.owned(at)
        members = None if owned is None else ((Member(self.member(at), "worker-1", "host", (0,)),) if owned else ())
        topics: tuple[tuple[str, int], ...] = (("t", 1),)
        if self.elsewhere:
            topics, members = (("t", 1), ("u", 1)), (*(members or ()), Member("n", "worker-2", "host", (1,)))
        one = lambda value: np.array([value, 0][: len(topics)], dtype=np.int64)  # noqa: E731
        committed = lambda value: np.array([value] if known else [], dtype=np.int64)  # noqa: E731
        none = np.empty(0, dtype=np.int64)
        end = self.end(at)
        high = end if self.high is None else self.high(at)
        return Round(
            cluster="c", time_ms=round((at + _EPOCH_S) * 1000), topics=topics,
            groups=(Group("g", "STABLE", members),), failed=(),
            end=one(end), low=one(self.low(at)), high=one(max(high, end)), newest_offset=none, newest_ms=none,
            commit_group=committed(0), commit_partition=committed(0),
            commit_offset=committed(known[-1] if known else 0),
            commit_mark=committed(len(known) if self.marks else 0), commit_cycle=committed(FOREIGN),
        )  # fmt: skip


_EPOCH_S: Final = 1_800_000_000.0


def nothing_found() -> GroupLag:
    raise AssertionError("the group has nothing that could be judged")


def grows(per_s: float, *, start: int = 10_000) -> OfTime:
    """A log that grows evenly."""
    return lambda t: start + int(per_s * (t + 7_200))


def behind(end: OfTime, lag: Callable[[float], float], *, every_s: float = 5.0, until_s: float = WINDOW_S,
           from_s: float = -WINDOW_S) -> list[tuple[float, int]]:  # fmt: skip
    """Commits of a consumer that is behind by `lag(t)` records."""
    count = int((until_s - from_s) / every_s)
    times = [from_s + every_s * i for i in range(count + 1)]
    return [(t, max(0, end(t) - int(lag(t)))) for t in times]


_100 = grows(100.0)
_IDLE = lambda _: 50_000  # noqa: E731
_TALK = lambda t: 50_000 + int(max(-7_200, min(t, 50))) + (0 if t < 60 else 6_000)  # noqa: E731
_LEAVES = [
    *[(float(t), _100(t) - 3_000) for t in range(-120, 31, 30)],
    (60.0, _100(60) - 741), (70.0, _100(70) - 741),
]  # fmt: skip
_BURST = lambda t: 50_000 if t < 60 else 56_000  # noqa: E731


def _dipped(t: float) -> float:
    return 5_000 + 40 * t - (300 if t == 100 else 0)


def _surge(t: float) -> int:
    return _100(t) + max(0, int(150 * (t - 20)))


HISTORIES: Final = (
    History("keeps up", _100, behind(_100, lambda _: 0), Status.OK, Status.OK, "no lag"),
    History("a second behind, as any reader is", _100, behind(_100, lambda t: 100 + t % 7), Status.OK, Status.OK,
            "on time: a second"),
    History("a second behind, and by chance never less in the window", _100, behind(_100, lambda t: 100 + t / 5),
            Status.WARN, Status.OK, "tiny lag does not warn: it is judged in seconds"),
    History("falls further behind", _100, behind(_100, lambda t: 5_000 + 40 * t), Status.WARN, Status.WARN,
            "both see it grow"),
    History("falls further behind, with one dip", _100, behind(_100, _dipped), Status.OK, Status.WARN,
            "one dip hides nothing: medians are compared"),
    History("falls further behind since a surge, and was at the end before",
            _surge, behind(_surge, lambda t: max(0, 150 * (t - 20)), every_s=12), Status.OK, Status.WARN,
            "nor does one commit at the end: for Burrow the two minutes are fine"),
    History("a fixed minute behind", _100, behind(_100, lambda _: 6_000), Status.WARN, Status.WARN,
            "not catching up, at a minute"),
    History("a fixed minute behind, with ripples", _100, behind(_100, lambda t: 6_000 + 50 * (t % 2)), Status.OK,
            Status.WARN, "ripples are no catching up"),
    History("catches up", _100, behind(_100, lambda t: 20_000 - 80 * t), Status.OK, Status.OK,
            "behind by minutes, done in two"),
    History("catches up, with one rise", _100, behind(_100, lambda t: 20_000 - 80 * t + (900 if t == 60 else 0)),
            Status.OK, Status.OK, "one rise is no growth either"),
    History("dies in the middle of traffic", _100, behind(_100, lambda _: 0, until_s=60), Status.OK, Status.STOP,
            "lag is evaluated also when commits have ceased: Burrow sees the zeros of before",
            owned=lambda t: t < 70),
    History("dies while it is behind", _100, behind(_100, lambda _: 4_000, until_s=60), Status.STOP, Status.STOP,
            "nobody has the partition", until_s=120, owned=lambda t: t < 70),
    History("died an hour ago", _100, behind(_100, lambda _: 4_000, from_s=-3_700, until_s=-3_600), Status.STOP,
            Status.STOP, "nobody has the partition", owned=lambda _: False),
    History("died, and nothing has come since", _IDLE, behind(_IDLE, lambda _: 0, until_s=-60), Status.OK, Status.OK,
            "nothing is left to do", owned=lambda _: False),
    History("a lone commit a moment ago", _100, [(110.0, _100(105))], Status.STOP, Status.WARN,
            "one commit is no end: it is watched for longer"),
    History("a lone commit a moment ago, on time", _100, [(118.0, _100(118) - 50)], Status.STOP, Status.OK,
            "two seconds behind"),
    History("commits once a minute", _100, [(t, _100(t - 1)) for t in (-120.0, -60.0, 0.0, 60.0)], Status.WARN,
            Status.OK, "its rhythm is known, and at its last commit it had read everything"),
    History("hangs, still a member", _100, behind(_100, lambda _: 2_000, until_s=30), Status.STOP, Status.STALL,
            "it has the partition and does not get on: STALL, not STOP"),
    History("repeats one record for ever", _100, [(t, 720_000) for t in range(-100, 121, 5)], Status.STALL,
            Status.STALL, "commits go on at one position", marks=True),
    History("repeats one record, having drained before", _100,
            [*behind(_100, lambda _: 0, until_s=55), *[(float(t), _100(55)) for t in range(60, 121, 20)]], Status.OK,
            Status.STALL, "Burrow's window still holds a zero", marks=True),
    History("commits only transaction markers away", lambda _: 50_001, [(t, 50_000) for t in range(-100, 121, 5)],
            Status.STALL, Status.OK, "what is left is a marker, no record", records_end=lambda _: 50_000),
    History("an open transaction at the end", _IDLE, [(t, 50_000) for t in range(-100, 121, 5)], Status.OK,
            Status.OK, "nobody can read it yet: the last stable offset counts",
            high=lambda t: 58_000 if t > 112 else 50_000),
    History("transactions one after the other", _100, behind(_100, lambda _: 0), Status.WARN, Status.OK,
            "each is open for a moment", high=lambda t: _100(t) + 800),
    History("a transaction of half a minute", _IDLE, [*behind(_IDLE, lambda _: 0, until_s=90)], Status.OK,
            Status.OK, "a producer may take so long: it is mentioned, and no trouble yet",
            high=lambda t: 50_000 + int(50 * max(0, t - 90))),
    History("a transaction stays open for long", _IDLE, [*behind(_IDLE, lambda _: 0, until_s=10)], Status.OK,
            Status.WARN, "no lag, and not the consumer's doing: but what comes after it waits",
            high=lambda t: 50_000 + int(50 * max(0, t))),
    History("a transaction that was open before anybody looked", _IDLE, [*behind(_IDLE, lambda _: 0, until_s=10)],
            Status.STOP, Status.WARN, "its first record tells since when", high=lambda t: 50_000 + int(50 * (t + 200))),
    History("behind, with an open transaction at the end", _100, behind(_100, lambda t: 5_000 + 40 * t), Status.WARN,
            Status.WARN, "what can be read comes first", high=lambda t: _100(t) + 800),
    History("reset to the beginning", _100, [*behind(_100, lambda _: 900, until_s=95), (100.0, 0), (105.0, 2_000),
            (110.0, 4_000), (115.0, 6_000), (120.0, 8_000)], Status.REWIND, Status.REWIND,
            "went back, far from regained"),
    History("went back by little and regained it", _100, [*behind(_100, lambda _: 3_000, until_s=85),
            (90.0, _100(80) - 3_000), *behind(_100, lambda _: 3_000, from_s=95)], Status.REWIND, Status.WARN,
            "what is regained is no rewind; half a minute behind it stays"),
    History("went back while drained", _IDLE, [(0.0, 50_000), (60.0, 49_000), (65.0, 49_500), (70.0, 50_000)],
            Status.OK, Status.OK, "regained, and drained"),
    History("retention took what it had not read", _100, behind(_100, lambda _: 9_000, until_s=0), Status.STOP,
            Status.ERR, "records are lost to it, and that is more than lag", low=lambda _: _100(-60)),
    History("retention took all that it had not read", _IDLE, [(t, 40_000) for t in range(-100, 121, 5)], Status.STALL,
            Status.ERR, "no lag is left, and everything was missed", low=lambda _: 50_000),
    History("position past the end of the log", lambda _: 100, [(t, 50_000) for t in range(-100, 121, 5)], Status.OK,
            Status.ERR, "the topic was created again: Burrow takes a negative lag for none"),
    History("a burst that is worked off", _BURST, [*behind(_BURST, lambda _: 0, until_s=55),
            *[(float(t), 50_000 + 75 * (t - 60)) for t in range(60, 121, 5)]], Status.OK, Status.OK, "falling"),
    History("a burst of which nothing is read", _TALK, behind(_TALK, lambda _: 0, until_s=55), Status.OK,
            Status.STALL, "zeros of before hide nothing"),
    History("a burst of which nothing is read, by somebody who was not seen to commit anything yet", _BURST,
            behind(_BURST, lambda _: 0, until_s=55), Status.OK, Status.WARN,
            "it may commit every few minutes: STALL after 17 min, or sooner where it is declared how often it commits"),
    History("one record unread for minutes", lambda t: 50_000 if t < -100 else 50_001, [(-60.0, 50_000)], Status.STOP,
            Status.STALL, "one record is lag if it waits for minutes", policy=Policy(commits_s=5.0)),
    History("a record after an idle night", lambda t: 50_000 if t < 100 else 50_001,
            [*behind(lambda t: 40_000 + int(t), lambda _: 0, from_s=-7_200, until_s=-3_600), (-3_600.0, 50_000)],
            Status.OK, Status.WARN, "a quiet night is no stall: it has waited for 20 s, not for an hour",
            watched_s=7_200.0),
    History("commits every five minutes", _100, [(t, _100(t) - 50) for t in range(-3_000, 121, 300)], Status.WARN,
            Status.OK, "its rhythm is known, and at its last commit it had read everything", until_s=280.0,
            watched_s=2_000.0),
    History("works off a batch in 15 minutes, commits, takes the next one", _100,
            [(t, _100(t - 900)) for t in range(-7_200, 121, 900)], Status.WARN, Status.OK,
            "behind by one batch, as always", until_s=850.0, watched_s=6_000.0),
    History("commits every five minutes, and each time less of what has come", _100,
            [(t, _100(t) - 60_000 - 10 * (t + 3_000)) for t in range(-3_000, 121, 300)], Status.WARN, Status.WARN,
            "commits are compared with commits", until_s=280.0, watched_s=3_000.0),
    History("commits every five minutes, and catches up", _100,
            [(t, _100(t) - 120_000 + 20 * (t + 3_000)) for t in range(-3_000, 121, 300)], Status.OK, Status.OK,
            "commits are compared with commits", until_s=280.0, watched_s=3_000.0),
    History("commits every five minutes, and hangs", _100, [(t, _100(t)) for t in range(-3_000, -899, 300)], Status.OK,
            Status.STALL, "no move for three of its intervals", watched_s=3_000.0),
    History("commits every 30 s, and its members leave while lag falls", _100, _LEAVES, Status.OK, Status.STOP,
            "741 records at its last commit are 5,741 now: nobody catches up, and a rhythm needs somebody who has it",
            owned=lambda t: t < 75),
    History("a consumer that assigns partitions itself, and commits every minute", _100,
            [(t, _100(t)) for t in range(-1_000, 121, 60)], Status.OK, Status.OK,
            "no member, but commits show that it lives", until_s=110.0, owned=lambda _: False, watched_s=1_000.0),
    History("a consumer that assigns partitions itself, and has ended", _100,
            [(t, _100(t)) for t in range(-1_000, -100, 60)], Status.OK, Status.STOP, "no commit for three intervals",
            until_s=110.0, owned=lambda _: False, watched_s=1_000.0),
    History("starts, works, and dies again and again", _100,
            [(float(t), _100(t) - 500) for t in range(-600, 121, 5) if t % 120 < 60], Status.STOP, Status.STOP,
            "each time nobody is there", until_s=110.0, owned=lambda t: t % 120 < 65, member=lambda t: f"m{t // 120}",
            watched_s=600.0),
    History("starts, works, and dies again and again: as it works", _100,
            [(float(t), _100(t) - 3_000 + int(t % 120) * 20) for t in range(-600, 181, 5) if t % 120 < 60], Status.OK,
            Status.WARN, "it does not stay up: what it works off is not caught up", until_s=165.0,
            owned=lambda t: t % 120 < 65, member=lambda t: f"m{t // 120}", watched_s=600.0),
    History("runs once an hour, and is declared to", _100, behind(_100, lambda _: 0, from_s=-3_600, until_s=-3_000),
            Status.OK, Status.OK, "lag is what a batch is made of", owned=lambda t: t < -3_000,
            watched_s=3_600.0, policy=Policy(batch_s=5_400.0)),
    History("runs once an hour, is declared to, and did not", _100,
            behind(_100, lambda _: 0, from_s=-7_200, until_s=-6_600), Status.OK, Status.WARN,
            "for the morning, not for the night", owned=lambda t: t < -6_600, watched_s=7_200.0,
            policy=Policy(batch_s=5_400.0)),
    History("has left the topic for another one, and lives", _100,
            behind(_100, lambda _: 500, from_s=-2_000, until_s=-1_000), Status.STOP, Status.OK,
            "its old offsets are no outage: no member is subscribed to the topic",
            owned=lambda _: False, elsewhere=True),
    History("has left the topic, and retention has deleted what it would have read", _IDLE,
            [(t, 40_000) for t in range(-1_000, -900, 5)], Status.STOP, Status.OK, "nobody is to read it",
            owned=lambda _: False, elsewhere=True, low=lambda _: 50_000),
    History("the member that has the topic dies, others of the group read another one", _100,
            behind(_100, lambda _: 4_000, until_s=60), Status.STOP, Status.STOP,
            "a member had it within the window: it is missed", owned=lambda t: t < 70, elsewhere=True),
    History("only aborted records away, more of them than markers can be", lambda _: 51_002,
            [(t, 50_000) for t in range(-100, 121, 5)], Status.STALL, Status.OK,
            "a position that does not move is looked up in the log", records_end=lambda _: 50_000),
    History("never committed, nothing to read", lambda _: 0, [], Status.NOTFOUND, Status.OK,
            "nothing is left to do: a flow that nothing was sent to yet"),
    History("never committed, and there is something", _100, [], Status.NOTFOUND, Status.STALL,
            "a member has it and has never got anywhere; Burrow knows only who commits"),
)  # fmt: skip


def table() -> str:
    """The histories as a table, by what the code says of them."""
    lines = ["| history | Burrow | ours | why |", "|---|---|---|---|"]
    for one in HISTORIES:
        told = one.of_ours
        ours = Status(int(told.verdicts.status[0])).name
        theirs = one.of_burrow().name
        mark = "**" if ours != theirs else ""
        lines.append(f"| {one.name} | {theirs} | {mark}{ours}{mark} | {one.why}<br>*{told.why(0)}* |")
    return "\n".join(lines)


def written(text: str) -> str:
    """The document with the table as it should be."""
    begin, end = "<!-- histories: begin -->", "<!-- histories: end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{table()}\n{end}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
