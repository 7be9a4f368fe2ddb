"""A target behind a breaker: after failures in a row it is left alone for a while, whatever is asked of it."""

from collections.abc import Collection, Mapping

from streams.resilience.breaker import Guard
from streams.sinks.target import Target, TargetBatch, TargetUnavailable


class GuardedTarget:
    """`sinks.target.Target`; each call raises `BreakerOpen` while the breaker rests.

    All calls count, not only writes: after a failed write it is `positions` that a target which is away fails at. But
    its answer closes nothing: a target that says where it stands may still refuse all writes (a full disk, status 500).
    """

    def __init__(self, target: Target, guard: Guard) -> None:
        self._target, self._guard = target, guard

    def prepare(self) -> None:
        """See `Target.prepare`."""
        self._guard.call(self._target.prepare, failure=TargetUnavailable)

    def open(self, partitions: Collection[int]) -> Mapping[int, int]:
        """See `Target.open`."""
        return self._guard.call(lambda: self._target.open(partitions), failure=TargetUnavailable)

    def positions(self, partitions: Collection[int]) -> Mapping[int, int]:
        """See `Target.positions`."""
        return self._guard.ask(lambda: self._target.positions(partitions), failure=TargetUnavailable)

    def write(self, batch: TargetBatch) -> None:
        """See `Target.write`."""
        self._guard.call(lambda: self._target.write(batch), failure=TargetUnavailable)

    def release(self, partitions: Collection[int]) -> None:
        """See `Target.release`."""
        self._target.release(partitions)

    def close(self) -> None:
        """See `Target.close`."""
        self._target.close()
