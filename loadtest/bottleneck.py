"""What kept a run from being faster, in words: a judgement of measured figures by stated rules."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

DOWNSTREAM_SHARE: Final = 0.6
OTHERS_SHARE: Final = 0.3
"""Share of the cores in use that programs outside the test may take."""
STOLEN_SAID: Final = 0.1
"""Cores; less is not worth a word."""
BUSY_SHARE: Final = 0.85
"""Share of its capacity above which a process or machine counts as full."""
SKEW: Final = 1.5
"""Records of the fullest partition over the mean."""
TAIL_SHARE: Final = 0.25
"""Share of the time in which fewer than half of the partitions still had lag."""
MIXED_SHARE: Final = 0.15
"""Two users of CPU whose shares of the cores in use differ by less than this are both named."""
CLOSE_SHARE: Final = 0.05
"""A figure that is so near to its threshold might have been on the other side of it."""
UNEXPLAINED_SAID: Final = 0.1
"""Cores; less is not worth a word."""
BEHIND_MS: Final = 1_000.0
"""With a larger delay after its schedule, a generator has not sent the rate that was asked for."""


class Wall(StrEnum):
    """What is full."""

    WORKER_CPU = "worker CPU"
    BROKER = "broker"
    GENERATOR = "generator"
    DOWNSTREAM = "downstream"
    SKEWED_PARTITION = "skewed partition"
    OTHERS = "other programs"
    MIXED = "mixed"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured while the workers were kept busy. CPU in cores, means over that time."""

    cores: int
    machine: float
    workers: tuple[float, ...]
    broker: float | None
    """Share of the machine that the broker uses; None: the broker runs on another machine."""
    generators: float
    harness: float = 0.0
    """Share of the machine that the load test's own processes use."""
    stolen: float = 0.0
    """Share of the used processor time that the machine's host gave to other machines."""
    downstream_share: float = 0.0
    """Use of the downstream: the share of its rate that is used, or of the workers' time that they wait for it; the
    larger one."""
    partition_share_max: float = 1.0
    """Records of the fullest partition over the mean of all."""
    tail_share: float = 0.0
    behind_ms: float = 0.0
    """How far the generators were behind their schedule, at most."""

    @property
    def unexplained(self) -> float:
        """Cores in use that no known process has used: other programs, and the kernel on behalf of anyone."""
        known = sum(self.workers) + (self.broker or 0.0) + self.generators + self.harness + self.stolen
        return max(0.0, self.machine - known)


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The verdict on what limits the rate."""

    wall: Wall
    words: str
    margin: float | None = None
    """How far the figure that decided it is beyond its threshold, as a share of the threshold; None: no threshold was
    reached."""

    def as_dict(self) -> dict[str, str | float | None]:
        """Return the bottleneck as an object of the report's JSON."""
        margin = None if self.margin is None else round(self.margin, 3)
        return {"wall": self.wall.value, "words": self.words, "margin": margin}


def judge(load: Load) -> Bottleneck:
    """The verdict of the first rule that applies, with a remark where it was a close one."""
    found = next(found for rule in _RULES if (found := rule(load)) is not None)
    if found.margin is not None and found.margin < CLOSE_SHARE:
        return replace(found, words=f"{found.words} (a close call: {found.margin:.0%} beyond the threshold)")
    return found


def _generator(load: Load) -> Bottleneck | None:
    if load.behind_ms <= BEHIND_MS:
        return None
    behind = f"the generators were up to {load.behind_ms / 1000:.1f} s behind their schedule"
    full = _machine(load)
    if full is not None:
        return replace(full, words=f"{full.words}; {behind} for want of CPU")
    return Bottleneck(
        Wall.GENERATOR,
        f"{behind}: what was asked for was never sent; give them more processes (--generators), or a machine of their "
        "own",
        load.behind_ms / BEHIND_MS - 1,
    )


def _downstream(load: Load) -> Bottleneck | None:
    if load.downstream_share <= DOWNSTREAM_SHARE:
        return None
    return Bottleneck(
        Wall.DOWNSTREAM,
        f"the downstream calls of the partitions are {load.downstream_share:.0%} busy, one at a time for each: more "
        "partitions (and workers for them) bring more, more CPU does not",
        load.downstream_share / DOWNSTREAM_SHARE - 1,
    )


def _skew(load: Load) -> Bottleneck | None:
    if load.partition_share_max <= SKEW or load.tail_share <= TAIL_SHARE:
        return None
    return Bottleneck(
        Wall.SKEWED_PARTITION,
        f"the fullest partition has {load.partition_share_max:.1f} times the mean and was among the last ones at work: "
        "hot keys; more partitions do not split a key",
        min(load.partition_share_max / SKEW, load.tail_share / TAIL_SHARE) - 1,
    )


def _machine(load: Load) -> Bottleneck | None:
    if load.machine < BUSY_SHARE * load.cores:
        return None
    margin = load.machine / (BUSY_SHARE * load.cores) - 1
    if load.stolen > OTHERS_SHARE * load.machine:
        return Bottleneck(
            Wall.OTHERS,
            f"the host gave {load.stolen:.1f} of {load.cores} cores to others ({_shares(load)}): measure again when it "
            "is quiet",
            margin,
        )
    if load.unexplained > OTHERS_SHARE * load.machine:
        others = (
            "programs that are no part of this test: measure again when it is quiet"
            if load.broker is not None
            else "a broker on this machine, or programs that are no part of this test: give each a machine of its own"
        )
        return Bottleneck(
            Wall.OTHERS,
            f"all cores of this machine are in use ({_shares(load)}), {load.unexplained:.1f} of them by {others}",
            margin,
        )
    parts = {
        Wall.WORKER_CPU: sum(load.workers), Wall.BROKER: load.broker or 0.0,
        Wall.GENERATOR: load.generators + load.harness,
    }  # fmt: skip
    wall, second = sorted(parts, key=lambda name: -parts[name])[:2]
    if parts[wall] - parts[second] < MIXED_SHARE * load.machine:
        return Bottleneck(
            Wall.MIXED,
            f"all cores of this machine are in use ({_shares(load)}), about as many of them by {_NAMES[wall]} as by "
            f"{_NAMES[second]}: give each a machine of its own before you judge either",
            margin,
        )
    waits = ""
    if load.downstream_share > DOWNSTREAM_SHARE:
        waits = f"; the downstream calls are {load.downstream_share:.0%} busy as well: partitions help once cores do"
    return Bottleneck(
        wall,
        f"all cores of this machine are in use ({_shares(load)}), most of them by {_NAMES[wall]}: more cores, or other "
        f"machines, bring more; more partitions do not{waits}",
        margin,
    )


def _worker(load: Load) -> Bottleneck | None:
    busiest = max(load.workers, default=0.0)
    if busiest < BUSY_SHARE:
        return None
    return Bottleneck(
        Wall.WORKER_CPU,
        f"a worker fills its interpreter ({busiest:.2f} cores; {_shares(load)}): more workers, and a partition for "
        "each",
        busiest / BUSY_SHARE - 1,
    )


def _broker(load: Load) -> Bottleneck | None:
    if load.broker is None or load.broker < BUSY_SHARE * load.cores / 2:
        return None
    return Bottleneck(
        Wall.BROKER,
        f"the broker uses more than anyone else ({_shares(load)}): give it cores, or more brokers",
        load.broker / (BUSY_SHARE * load.cores / 2) - 1,
    )


def _nothing(load: Load) -> Bottleneck:
    return Bottleneck(
        Wall.NONE,
        f"nothing is full ({_shares(load)}): the rate was what was asked for, or waits (commit interval, network) "
        "bound it",
    )


_RULES: Final = (_generator, _machine, _downstream, _skew, _worker, _broker, _nothing)
_NAMES: Final = {Wall.WORKER_CPU: "the workers", Wall.BROKER: "the broker", Wall.GENERATOR: "the test itself"}


def _shares(load: Load) -> str:
    broker = "elsewhere" if load.broker is None else f"{load.broker:.1f}"
    stolen = f", stolen by other guests of its host {load.stolen:.1f}" if load.stolen >= STOLEN_SAID else ""
    rest = f", unexplained {load.unexplained:.1f}" if load.unexplained >= UNEXPLAINED_SAID else ""
    return (
        f"workers {sum(load.workers):.1f}, broker {broker}, generators {load.generators:.1f}, "
        f"load test {load.harness:.1f}{rest}{stolen}; {load.cores} cores in all"
    )
