"""The benchmark's parts, and what an invocation is asked to measure."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final


class Part(StrEnum):
    """What can be measured by itself."""

    PASSTHROUGH = "passthrough"
    GPS = "gps"
    WINDOWS = "windows"
    RECOVERY = "recovery"
    ORDERS = "orders"
    FAUST = "faust"
    LATENCY = "latency"
    STEADY = "steady"
    KAFKA_STREAMS = "kafka-streams"
    JOIN = "join"
    MEMORY = "memory"


DEFAULT_PARTS: Final = frozenset(Part) - {Part.MEMORY}
"""Memory takes its time, and a topic of its own."""


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes of one invocation."""

    events: int
    orders_events: int
    partitions: int
    faust_events: int
    latency_s: int
    memory_s: int
    seed: int
    parts: frozenset[Part]
    steady_s: int = 0
    """Duration of steady traffic in seconds; 0: steady traffic is not measured."""
    join_positions: int = 0
    join_steps: int = 0


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the programs under measurement keep their state, and where their logs go."""

    data: Path
    logs: Path
