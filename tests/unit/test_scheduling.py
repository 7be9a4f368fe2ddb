"""Which process runs which file: xdist's own scheduler with processes whose time is counted instead of spent."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from xdist.remote import Producer

from tests.scheduling import SECONDS, FilesByNeed, is_on_a_broker, seconds_of


@dataclass(eq=False)
class Node:
    """A process: it begins with a test when it has been told the one behind it, or that there is none."""

    number: int
    queue: list[int] = field(default_factory=list)
    shutting_down: bool = False
    free_at_s: float = 0.0
    files: list[str] = field(default_factory=list)

    @property
    def gateway(self) -> SimpleNamespace:
        return SimpleNamespace(id=f"gw{self.number}")

    def send_runtest_some(self, indices: list[int]) -> None:
        self.queue += indices

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def can_begin(self) -> bool:
        return len(self.queue) > 1 or (self.shutting_down and bool(self.queue))


def run(tests: dict[str, list[float]], processes: int) -> list[Node]:
    """Run files, each a list of the seconds of its tests."""
    config: Any = SimpleNamespace(
        option=SimpleNamespace(loadscopereorder=False), getvalue=lambda _: ["popen"] * processes
    )
    scheduler = FilesByNeed(config, Producer("tests", enabled=False))
    names = [f"{file}::test_{number}" for file, durations in tests.items() for number in range(len(durations))]
    durations = [each for some in tests.values() for each in some]
    nodes = [Node(number) for number in range(processes)]
    for node in nodes:
        scheduler.add_node(node)
    for node in nodes:
        scheduler.add_node_collection(node, names)
    scheduler.schedule()
    done = 0
    while done < len(names):
        node = min((node for node in nodes if node.can_begin), key=lambda node: node.free_at_s)
        item = node.queue.pop(0)
        file = names[item].partition("::")[0]
        if file not in node.files:
            node.files.append(file)
        node.free_at_s += durations[item]
        scheduler.mark_test_complete(node, item)
        done += 1
    assert scheduler.tests_finished
    return nodes


def one_each(*files: str) -> dict[str, list[float]]:
    return {file: [seconds_of(file) / 4] * 4 for file in files}


PURE = [f"tests/unit/test_{number}.py" for number in range(150)]


def test_two_of_three_processes_begin_on_a_broker_with_the_longest_files_and_one_without() -> None:
    first, second, third = run(one_each(*PURE, *SECONDS), 3)
    longest = sorted(SECONDS, key=seconds_of, reverse=True)[:2]
    assert longest == [first.files[0], second.files[0]]
    assert not is_on_a_broker(third.files[0])


@pytest.mark.parametrize("processes", [1, 2])
def test_one_or_two_processes_run_all_files_those_on_a_broker_first(processes: int) -> None:
    for node in run(one_each(*PURE, *SECONDS), processes):
        kinds = [is_on_a_broker(file) for file in node.files]
        assert kinds == sorted(kinds, reverse=True)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_end_at_about_the_same_time_and_no_file_is_run_by_two(processes: int) -> None:
    tests = one_each(*PURE, *SECONDS)
    nodes = run(tests, processes)
    ran = [file for node in nodes for file in node.files]
    assert sorted(ran) == sorted(tests)
    ends = [node.free_at_s for node in nodes]
    assert max(ends) <= 1.03 * sum(ends) / processes, ends


def test_no_file_waits_behind_a_long_test_of_another_one() -> None:
    """With two tests left, as xdist has it, the second file would be given to the process that is busy for long."""
    tests = {"tests/integration/test_long.py": [1.0, 100.0, 1.0], "tests/integration/test_short.py": [1.0, 1.0]}
    first, second = run(tests | {"tests/integration/test_third.py": [3.0, 3.0]}, 2)
    assert ["tests/integration/test_long.py"] == first.files
    assert len(second.files) == 2


def test_every_file_whose_time_is_noted_is_there() -> None:
    root = Path(__file__).parents[2]
    assert [] == [file for file in SECONDS if not (root / file).is_file()]
