"""Which process of a parallel run takes which file of tests.

Tests on a broker wait most of the time; tests without one use a processor all of the time. So two thirds of the
processes begin with files of the first kind and the rest with files of the other kind, each with the longest files
first; whoever has no more of its own kind takes the other. A file is run by one process, in its order.
"""

from pathlib import PurePosixPath
from typing import Any, Final

from xdist.scheduler import LoadFileScheduling

ON_A_BROKER: Final = frozenset({"integration", "faults", "contract"})
"""Folders of files that start a stack, or use the session's."""
UNKNOWN_S: Final = {True: 15.0, False: 1.0}
"""For files that `SECONDS` does not have, by whether they are on a broker."""
SECONDS: Final = {
    "tests/integration/test_monitor.py": 180,
    "tests/integration/test_dlq_page.py": 150,
    "tests/integration/test_exactly_once.py": 130,
    "tests/integration/test_outages.py": 120,
    "tests/integration/test_demo.py": 120,
    "tests/integration/test_groups.py": 105,
    "tests/integration/test_local_stack.py": 100,
    "tests/integration/test_secured.py": 100,
    "tests/integration/test_ingest.py": 95,
    "tests/faults/test_data.py": 85,
    "tests/faults/test_source.py": 75,
    "tests/integration/test_dlq.py": 75,
    "tests/integration/test_lag.py": 65,
    "tests/contract/test_sink.py": 60,
    "tests/contract/test_source.py": 60,
    "tests/integration/test_partitions_added.py": 55,
    "tests/integration/test_sink.py": 50,
    "tests/integration/test_evolve_a_schema.py": 45,
    "tests/integration/test_tables.py": 60,
    "tests/integration/test_state.py": 45,
    "tests/faults/test_identity.py": 45,
    "tests/integration/test_loadtest.py": 42,
    "tests/integration/test_own_table.py": 42,
    "tests/integration/test_worker_processes.py": 42,
    "tests/integration/test_topics.py": 35,
    "tests/integration/test_generator.py": 35,
    "tests/integration/test_merged_inputs.py": 35,
    "tests/integration/test_monitor_without_kafka.py": 35,
    "tests/integration/test_native_worker.py": 35,
    "tests/faults/test_outputs.py": 35,
    "tests/integration/test_bench.py": 32,
    "tests/integration/test_write_an_operator.py": 32,
    "tests/integration/test_watchdog.py": 30,
    "tests/integration/test_add_a_stream.py": 30,
    "tests/faults/test_memory.py": 25,
}
"""How long files take that take long, roughly: the order in which they begin follows from it, and nothing else."""


def is_on_a_broker(file: str) -> bool:
    """Whether the tests of a file need a broker, by the folder that it is in."""
    return not ON_A_BROKER.isdisjoint(PurePosixPath(file).parts)


def seconds_of(file: str) -> float:
    """How long a file takes, as far as that is known."""
    return SECONDS.get(file, UNKNOWN_S[is_on_a_broker(file)])


class FilesByNeed(LoadFileScheduling):  # type: ignore[misc]  # a class without types
    """Files on a broker for the first two thirds of the processes, all others for the rest, while there are any."""

    def _begins_on_a_broker(self, node: Any) -> bool:
        number, processes = int(node.gateway.id.removeprefix("gw")), int(self.numnodes)
        return number % processes < processes - processes // 3

    def _assign_work_unit(self, node: Any) -> None:
        wanted = self._begins_on_a_broker(node)
        longest = max(self.workqueue, key=lambda file: (is_on_a_broker(file) == wanted, seconds_of(file)))
        self.workqueue.move_to_end(longest, last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: Any) -> None:
        """Give a process its next file when it has one test left: it begins with a test when it knows the one behind.

        xdist's own rule is two: a file then waits behind a long test, while other processes have nothing to do.
        """
        if not node.shutting_down and self.workqueue and self._pending_of(self.assigned_work[node]) > 1:
            return
        super()._reschedule(node)
