"""The verdict on one group as of one round: what the page, the metrics and the command line show. Pure."""

from dataclasses import dataclass

import numpy as np

from streams.batch.columns import Bools, Int64
from streams.kafka.round import Group
from streams.monitor.lookups import Partition
from streams.monitor.policy import Policy
from streams.monitor.reasons import NOT_COUNTED, Reason
from streams.monitor.status import Status, group_status
from streams.monitor.verdict import Verdicts
from streams.monitor.window import Owned, Window
from streams.monitor.words import Facts, sentence


@dataclass(frozen=True)
class GroupLag:
    """Verdict on one group as of one round. Rows are its partitions, by topic and number."""

    group: Group
    time_ms: int
    partitions: list[Partition]
    end: Int64
    window: Window
    verdicts: Verdicts
    lag_s_is_bound: Bools
    since_ms: Int64
    """Since when each partition has its status."""
    owners: dict[int, str]
    """By row, the client id of the member that has the partition."""
    complete: float
    """Share of the window that has samples."""
    open_since: dict[int, str]
    """By row, since when a transaction has been open, as ISO 8601."""
    policy: Policy
    """The limits it was judged by."""
    is_flow: bool
    """Whether it is the group of a declared flow's workers."""

    @property
    def name(self) -> str:
        """The group's name."""
        return self.group.name

    @property
    def lag(self) -> Int64:
        """Lag of each partition in records, now."""
        return self.window.lag[:, -1]

    @property
    def offset(self) -> Int64:
        """Committed offsets now; ABSENT: none."""
        return self.window.offset[:, -1]

    @property
    def counted(self) -> Bools:
        """Rows of the partitions that the group has to read: no topics that it has left, no kept versions."""
        return np.asarray(~np.isin(self.verdicts.reason, NOT_COUNTED), dtype=np.bool_)

    @property
    def lag_sum(self) -> int:
        """Lag of the group in records, without topics that it has left."""
        return int(self.lag.sum(where=self.counted))

    @property
    def lag_max(self) -> int:
        """Lag of its worst partition in records, without topics that it has left."""
        return int(self.lag.max(initial=0, where=self.counted))

    @property
    def lag_s_max(self) -> float:
        """Lag of its worst partition in seconds, without topics that it has left."""
        return float(self.window.lag_s.max(initial=0.0, where=self.counted))

    @property
    def status(self) -> Status:
        """Verdict on the group."""
        return group_status(Status(code) for code in np.unique(self.verdicts.status).tolist())

    @property
    def catch_up_s(self) -> float:
        """Seconds until its slowest partition has caught up; infinite if one is not catching up."""
        return float(self.verdicts.catch_up_s.max(initial=0.0))

    def waiting(self, for_s: float) -> float:
        """Records that arrived more than `for_s` ago and are not committed, if they arrived evenly."""
        lag_s = self.window.lag_s
        share = np.clip((lag_s - for_s) / np.maximum(lag_s, 1e-9), 0.0, 1.0)
        return float((self.lag * share).sum(where=self.counted))

    @property
    def flaps_max(self) -> int:
        """The largest number of members that one partition has lost recently (`Policy.flaps_s`)."""
        return int(self.window.flaps.max(initial=0, where=self.counted))

    def facts(self, row: int) -> Facts:
        """Inputs of the sentence about a partition."""
        verdicts, window = self.verdicts, self.window
        return Facts(
            reason=Reason(int(verdicts.reason[row])),
            lag=int(self.lag[row]),
            lag_s=float(window.lag_s[row]),
            lag_s_is_bound=bool(self.lag_s_is_bound[row]),
            unmoved_s=float(verdicts.unmoved_s[row]),
            unmoved_is_bound=int(window.moves.count[row]) == 0,
            rhythm_s=float(verdicts.rhythm_s[row]),
            flaps=int(window.flaps[row]),
            flaps_s=self.policy.flaps_s,
            batch_s=self.policy.batch_s or 0.0,
            back_by=int(verdicts.back_by[row]),
            deleted=int(window.deleted[row]),
            beyond=int(window.beyond[row]),
            consume_rate=float(verdicts.consume_rate[row]),
            arrive_rate=float(verdicts.arrive_rate[row]),
            catch_up_s=float(verdicts.catch_up_s[row]),
            owned=Owned(int(window.owned[row])),
            owner=self.owners.get(row, ""),
            unreadable=int(window.unreadable[row]),
            open_s=float(window.open_s[row]),
            open_since=self.open_since.get(row, ""),
            offset=int(self.offset[row]),
            state_at=int(window.state_at[row]),
        )

    def why(self, row: int) -> str:
        """The verdict on a partition in words."""
        return sentence(self.facts(row))
