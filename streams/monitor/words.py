"""A verdict in words: what the situation is, and what to do about it. Pure."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from streams.monitor.flow_states import AS_COMMITTED, NOWHERE
from streams.monitor.reasons import Reason
from streams.monitor.window import Owned
from streams.text import counted

OPEN_SAID_S: Final = 10.0
"""Records after an open transaction are mentioned once it has been open this long."""
_MINUTE_S: Final = 60.0
_HOUR_S: Final = 3_600.0
_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Facts:
    """Inputs of the sentence about one partition."""

    reason: Reason
    lag: int
    lag_s: float
    lag_s_is_bound: bool
    """`lag_s` is a lower bound: earlier times are not known."""
    unmoved_s: float
    unmoved_is_bound: bool
    """The position has not moved since watching began: it may have stood still for longer."""
    rhythm_s: float
    """How often it usually moves; NaN: not known."""
    flaps: int
    """How often the partition has lost its member within `flaps_s`."""
    flaps_s: float
    batch_s: float
    """Expected lag of a group that runs in batches; 0: it does not."""
    back_by: int
    deleted: int
    beyond: int
    consume_rate: float
    arrive_rate: float
    catch_up_s: float
    owned: Owned
    owner: str
    unreadable: int = 0
    open_s: float = 0.0
    open_since: str = ""
    """When the transaction began, as far as it is known."""
    offset: int = -1
    """The group's committed offset."""
    state_at: int = AS_COMMITTED
    """Offset of the flow's state, if its workers refuse the partition for it."""


def duration(seconds: float) -> str:
    """A duration for people: `0.4 s`, `12 s`, `3 min`, `2.5 h`, `4.0 d`."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    if seconds < 2 * _DAY_S:
        return f"{seconds / _HOUR_S:.1f} h"
    return f"{seconds / _DAY_S:.1f} d"


def rate(records_per_s: float) -> str:
    """Records a second, for people."""
    if not math.isfinite(records_per_s):
        return "?/s"
    return f"{records_per_s:,.0f}/s" if abs(records_per_s) >= 9.95 else f"{records_per_s:.1f}/s"


def sentence(facts: Facts) -> str:
    """Why the verdict is what it is, in one sentence without a full stop."""
    return _SENTENCES[facts.reason](facts)


def advice(reason: Reason) -> str:
    """What to do first; empty when nothing has to be done."""
    return _ADVICE.get(reason, "")


def _records(count: int) -> str:
    return counted(count, "record")


def _behind(facts: Facts) -> str:
    bound = "at least " if facts.lag_s_is_bound else ""
    return f"{_records(facts.lag)} and {bound}{duration(facts.lag_s)} behind"


def _rates(facts: Facts) -> str:
    if not math.isfinite(facts.consume_rate):
        return ""
    return f": {rate(facts.consume_rate)} read, {rate(facts.arrive_rate)} arrive"


def _unmoved(facts: Facts) -> str:
    # Nothing has moved since watching began: how long before that is not known, but the lag's age is.
    return f"{'at least ' if facts.unmoved_is_bound else ''}{duration(facts.unmoved_s)}"


def _owner(facts: Facts) -> str:
    if facts.owned is Owned.SOMEBODY:
        return facts.owner or "a member"
    return "nobody" if facts.owned is Owned.NOBODY else "nobody known"


def _unreadable(facts: Facts) -> str:
    return (
        f"{_records(facts.unreadable)} after an open transaction cannot be read yet; "
        f"it has been open since {facts.open_since} ({duration(facts.open_s)})"
    )


def _not_of_state(facts: Facts) -> str:
    if facts.state_at == NOWHERE:
        return (
            f"a cycle of the flow has committed offset {facts.offset:,}, and its journal is empty: deleted and created "
            "again. Workers do not consume the partition"
        )
    return (
        f"the group's offset {facts.offset:,} was set by something else, and the flow's state stands at "
        f"{facts.state_at:,}: workers do not consume the partition"
    )


def _drained(facts: Facts) -> str:
    if facts.unreadable and facts.open_s >= OPEN_SAID_S:
        return f"everything readable is read: {_unreadable(facts)}"
    return "all is read"


def _between_commits(facts: Facts) -> str:
    often = f"every {duration(facts.rhythm_s)}" if math.isfinite(facts.rhythm_s) else "seldom"
    return f"{_behind(facts)}: on time for who commits {often}, last {duration(facts.unmoved_s)} ago"


_SENTENCES: Final[dict[Reason, Callable[[Facts], str]]] = {
    Reason.DRAINED: _drained,
    Reason.ON_TIME: lambda f: f"{_behind(f)}: on time",
    Reason.CATCHING_UP: lambda f: f"{_behind(f)} and catching up{_rates(f)}, done in about {duration(f.catch_up_s)}",
    Reason.GROWING: lambda f: f"{_behind(f)} and falling further behind{_rates(f)}",
    Reason.NOT_FALLING: lambda f: f"{_behind(f)} and not catching up{_rates(f)}",
    Reason.TOO_SOON: lambda f: f"{_behind(f)}; too little was seen of it to tell where it goes",
    Reason.NOBODY_READS: lambda f: f"{_behind(f)}, and no member of the group has this partition",
    Reason.COMMITS_CEASED: lambda f: f"{_behind(f)}; the last move was {_unmoved(f)} ago",
    Reason.NO_PROGRESS: lambda f: f"{_behind(f)}; {_owner(f)} has it and has not moved for {_unmoved(f)}",
    Reason.SAME_COMMITS: lambda f: f"{_behind(f)}; commits go on, at one position for {_unmoved(f)}",
    Reason.WENT_BACK: lambda f: f"went back and is {_records(f.back_by)} short of where it was; {_behind(f)}",
    Reason.DELETED_UNREAD: lambda f: f"{_records(f.deleted)} deleted unread",
    Reason.BEHIND_END: lambda f: f"its position is {_records(f.beyond)} past the end of the log",
    Reason.NOTHING_COMMITTED: lambda _: "nothing committed, and nothing to read",
    Reason.OPEN_TRANSACTION: _unreadable,
    Reason.LEFT_TOPIC: lambda f: (
        "the group reads other topics, and no member is subscribed to this one any more: "
        f"what is after its last commit ({_records(f.lag)}) does not count"
    ),
    Reason.KEPT_VERSION: lambda f: (
        "a version of the flow that is kept and that nobody runs: "
        f"what is after its last commit ({_records(f.lag)}) does not count"
    ),
    Reason.NOT_IN_LAYOUT: lambda f: (
        f"{_behind(f)}: the partition was added to the topic, journal and tables have none of its number, "
        "and workers do not consume it"
    ),
    Reason.OFFSET_NOT_OF_STATE: _not_of_state,
    Reason.BETWEEN_COMMITS: _between_commits,
    Reason.BETWEEN_RUNS: lambda f: f"{_behind(f)}: {duration(f.batch_s)} are expected of a group that runs in batches",
    Reason.OVERDUE: lambda f: (
        f"{_behind(f)}; it runs in batches, and has not moved for {_unmoved(f)}, with {duration(f.batch_s)} expected"
    ),
    Reason.FLAPPING: lambda f: (
        f"{_behind(f)}; its member has gone {f.flaps} times within {duration(f.flaps_s)}: it does not stay up"
    ),
}

_ADVICE: Final[dict[Reason, str]] = {
    Reason.GROWING: "add a worker, or find what slows this one (streams_processing_seconds, hot keys)",
    Reason.NOT_FALLING: "add a worker, or find what slows this one (streams_processing_seconds, hot keys)",
    Reason.TOO_SOON: "look again in half a minute",
    Reason.NOBODY_READS: "start a worker; look why the last one ended",
    Reason.COMMITS_CEASED: "see whether its consumer still runs; restart it",
    Reason.NO_PROGRESS: "ask its /readyz why; restart it if it does not say",
    Reason.SAME_COMMITS: "look in its log for what repeats (aborts, a record that it cannot process)",
    Reason.WENT_BACK: "find who reset the offsets; harmless if meant",
    Reason.DELETED_UNREAD: "these records are gone: raise the retention, then replay from the source",
    Reason.OPEN_TRANSACTION: (
        "find its producer (kafka-transactions.sh describe-producers) and have it commit or abort"
    ),
    Reason.LEFT_TOPIC: (
        "nothing if that is meant: kafka-consumer-groups.sh --delete-offsets makes the group forget the topic; "
        "else start a member that subscribes to it"
    ),
    Reason.KEPT_VERSION: (
        "nothing: `streams backfill --rollback` goes back to it; `streams backfill --abandon` removes one that is not "
        "to be kept"
    ),
    Reason.NOT_IN_LAYOUT: (
        "finish it with `streams topics grow`, if the topic has a multiple of the partitions that it had "
        "(runbook partitions-not-consumed)"
    ),
    Reason.OFFSET_NOT_OF_STATE: (
        "the worker's /readyz has the command: set the offset back to that of the state, or rebuild the state "
        "(runbook worker-not-ready)"
    ),
    Reason.OVERDUE: "see why its last run did not take place, or did not end; start it",
    Reason.FLAPPING: "read in its log why it ends again and again (a record that it cannot pass, memory, a deploy)",
    Reason.BEHIND_END: "the topic was truncated or created again: reset the group's offsets",
}
