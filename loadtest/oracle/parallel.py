"""The oracle over many events: partition by partition, in one process more than there are cores, since one may wait.

Keys never leave their partition, so each partition is judged alone and forgotten before the next: memory is bounded by
the largest one (some 800 bytes an event) times the number of processes.
"""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from typing import Final

from loadtest.oracle.check import Limits, Misrouted, Topics, check, judge
from loadtest.oracle.compare import Report
from loadtest.oracle.decode import registry_schemas
from loadtest.oracle.read import Share, TopicReader

_METHOD: Final = "spawn"  # the clients of a forked process would share the threads and sockets of this one


def check_by_partition(
    bootstrap: str,
    registry_url: str,
    topics: Topics,
    limits: Limits,
    *,
    all_closed: bool = False,
    processes: int | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Report:
    """As `loadtest.oracle.check.check`. `on_progress` gets how many partitions are judged, of how many.

    Where keys are in partitions that are not theirs, all is judged at once instead.

    Raises:
        StreamsError: a topic is missing, or Kafka or the registry does not answer.

    """
    reader = TopicReader(bootstrap)
    try:
        partitions = reader.partitions(topics.source)
    finally:
        reader.close()
    total = Report()
    workers = min(partitions, processes or (os.cpu_count() or 1) + 1)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(_METHOD)) as pool:
        judged = [
            pool.submit(_judge, bootstrap, registry_url, topics, limits, Share(number, partitions), all_closed)
            for number in range(partitions)
        ]
        try:
            for done, future in enumerate(as_completed(judged), 1):
                total.add(future.result())
                on_progress(done, partitions)
        except Misrouted:
            pool.shutdown(cancel_futures=True)
            return check(bootstrap, registry_schemas(registry_url), topics, limits, all_closed=all_closed)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return total


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
