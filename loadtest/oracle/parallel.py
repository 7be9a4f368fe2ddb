"""The oracle over many events: partition by partition, in one process more than there are cores, since one may wait.

Keys never leave their partition, so each partition is judged alone and forgotten before the next. One that is too large
for the memory is judged in slices of its keys: its records are decoded once for each slice, since every one of them
moves the watermark, but only those of the slice are kept. (An id that two devices share would be judged wrongly then,
and be reported: ids are unique.)
"""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from typing import Final

from loadtest.oracle.check import Limits, Misrouted, Topics, check, judge
from loadtest.oracle.compare import Report
from loadtest.oracle.decode import registry_schemas
from loadtest.oracle.read import Share, TopicReader

MEMORY_MB: Final = 2_000
EVENT_BYTES: Final = 1_600
"""Memory for each record of the source that is kept: the expected event, the one that came out, and its window."""
PROCESS_MB: Final = 220
"""Memory of a process before it judges anything: interpreter, libraries, and what the client has fetched ahead."""
_METHOD: Final = "spawn"  # the clients of a forked process would share the threads and sockets of this one


def check_by_partition(
    bootstrap: str,
    registry_url: str,
    topics: Topics,
    limits: Limits,
    *,
    all_closed: bool = False,
    processes: int | None = None,
    memory_mb: int = MEMORY_MB,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Report:
    """As `loadtest.oracle.check.check`. `on_progress` gets how many shares are judged, of how many.

    `memory_mb`: of all processes together, however many records there are; less makes it slower.

    Where keys are in partitions that are not theirs, all is judged at once instead.

    Raises:
        StreamsError: a topic is missing, or Kafka or the registry does not answer.

    """
    reader = TopicReader(bootstrap)
    try:
        partitions = reader.partitions(topics.source)
        records = [reader.records_of(topics.source, number) for number in range(partitions)]
    finally:
        reader.close()
    total = Report()
    workers = processes_within(memory_mb, min(partitions, processes or (os.cpu_count() or 1) + 1))
    shares = shares_within(memory_mb / workers, records)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(_METHOD)) as pool:
        judged = [pool.submit(_judge, bootstrap, registry_url, topics, limits, share, all_closed) for share in shares]
        try:
            for done, future in enumerate(as_completed(judged), 1):
                total.add(future.result())
                on_progress(done, len(shares))
        except Misrouted:
            pool.shutdown(cancel_futures=True)
            return check(bootstrap, registry_schemas(registry_url), topics, limits, all_closed=all_closed)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return total


def processes_within(memory_mb: float, wanted: int) -> int:
    """So many processes as have room to judge something; at least one."""
    return max(1, min(wanted, int(memory_mb // (2 * PROCESS_MB))))


def shares_within(memory_mb: float, records: Sequence[int]) -> list[Share]:
    """Partitions with so many records each, cut into slices that a process of that much memory can judge."""
    room = max(1, int((memory_mb - PROCESS_MB) * 1e6 / EVENT_BYTES))
    return [
        Share(number, len(records), each, slices)
        for number, count in enumerate(records)
        for slices in [max(1, -(-count // room))]
        for each in range(slices)
    ]


# One connection for all shares that a process judges; it ends with the process.
_reader = cache(TopicReader)
_schemas = cache(registry_schemas)


def _judge(
    bootstrap: str,
    registry_url: str,
    topics: Topics,
    limits: Limits,
    share: Share,
    all_closed: bool,  # noqa: FBT001 - arguments of a task in another process are by position
) -> Report:
    return judge(
        _reader(bootstrap),
        _schemas(registry_url),
        topics,
        limits,
        lambda _topic, _read: None,
        all_closed=all_closed,
        share=share,
    )
