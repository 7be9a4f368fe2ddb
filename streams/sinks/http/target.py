"""An HTTP endpoint as a target: at least once, in order, with ids by which it can recognise repetitions.

It keeps no offsets for us: where the sink stands is in its consumer group. A process that dies between an answer and
the commit sends the same rows again, with the same ids. What an answer means:

- 2xx: the rows are there.
- 400, 409, 413, 415, 422: the request is at fault. Its halves are sent until the row that is refused stands alone.
- 429, 408 and all else (5xx, 401, 403, 404, no answer): the endpoint is at fault, and asked again later; `Retry-After`
  says when.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import aiohttp

from streams.masking import PERSONAL_MASK, masked
from streams.sinks.http.requests import Change, Place, body_of, changes_of, idempotency_key, portions
from streams.sinks.target import RowsRefused, TakenOver, TargetBatch, TargetUnavailable

REQUEST_S_MAX: Final = 30.0
RETRY_AFTER_S_MAX: Final = 300.0
ANSWER_BYTES_MAX: Final = 300
"""Of an answer that refuses, for the dead letter."""
SAMPLE: Final = 16
"""If this many rows at the beginning of a request are refused, each alone, the cause is not in single rows."""
_OF_ROWS: Final = frozenset({400, 409, 413, 415, 422})


class HttpTarget:
    """`sinks.target.Target` over one endpoint, at least once."""

    def __init__(
        self,
        url: str,
        *,
        sink: str,
        topic: str,
        committed: Callable[[Collection[int]], Mapping[int, int]],
        key: Sequence[str] = (),
        rows_max: int = 500,
        rate: float | None = None,
        headers: Mapping[str, str] | None = None,
        token: Callable[[], str | None] = lambda: None,
        masks_words: bool = False,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Rows of `topic` by POST to `url`, `rows_max` of them in a request, `rate` requests a second at most.

        `committed`: the offsets of the sink's group, -1 where there is none. `token` is asked for each request.
        `masks_words`: rows hold personal data, which the endpoint may quote: of its answers only the status is told.
        """
        self._url, self._sink, self._topic, self._key = url, sink, topic, tuple(key)
        self._committed, self._rows_max, self._rate = committed, rows_max, rate
        self._headers, self._token, self._masks_words = dict(headers or {}), token, masks_words
        self._monotonic_s, self._sleep = monotonic_s, sleep
        self._held: set[int] = set()
        self._done: dict[int, int] = {}
        """By partition, the offset after what the endpoint has taken in this process."""
        self._taken: set[Place] = set()
        """Changes of the batch at hand that the endpoint has taken."""
        self._due_s = 0.0
        self._runner: asyncio.Runner | None = None
        self._session: aiohttp.ClientSession | None = None

    def prepare(self) -> None:
        """Do nothing: an endpoint cannot be checked beforehand."""

    def open(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Where the group stands."""
        found = self._committed(partitions)
        self._held |= set(partitions)
        for partition in partitions:
            self._done.pop(partition, None)
        return found

    def positions(self, partitions: Collection[int]) -> Mapping[int, int]:
        """Where each of these stands: what this process knows that was taken, else the group."""
        self._check(partitions)
        unknown = [one for one in partitions if one not in self._done]
        found = dict(self._committed(unknown)) if unknown else {}
        return found | {one: self._done[one] for one in partitions if one in self._done}

    def write(self, batch: TargetBatch) -> None:
        """Send all changes, in order; of a batch that comes again, those that the endpoint has not taken yet."""
        self._check(batch.offsets)
        changes = changes_of(batch, sink=self._sink, topic=self._topic, key=self._key)
        refused: dict[tuple[int, int], str] = {}
        self._taken &= {change.place for change in changes}
        fresh = [change for change in changes if change.place not in self._taken]
        for part in portions(fresh, self._rows_max):
            self._send(part, refused)
        if refused:
            raise RowsRefused(refused)
        self._done.update(batch.offsets)
        self._taken.clear()

    def release(self, partitions: Collection[int]) -> None:
        """Forget partitions that this process no longer writes."""
        for partition in partitions:
            self._held.discard(partition)
            self._done.pop(partition, None)

    def close(self) -> None:
        """Close the client."""
        runner, self._runner = self._runner, None
        session, self._session = self._session, None
        if runner is not None:
            if session is not None:
                runner.run(session.close())
            runner.close()

    def _send(self, changes: Sequence[Change], refused: dict[tuple[int, int], str]) -> None:
        """Send changes; of those that the endpoint refuses, halves, until one stands alone.

        Raises:
            TargetUnavailable: the endpoint is at fault, also when it refuses each of the first rows alone.

        """
        waiting, alone = [list(changes)], 0
        while waiting:
            part = waiting.pop()
            why = self._post(part)
            if why is None:
                self._taken |= {change.place for change in part}
            elif len(part) == 1:
                alone += 1
                if alone == SAMPLE and self._taken.isdisjoint(change.place for change in changes):
                    raise TargetUnavailable(f"every one of {SAMPLE} rows is refused: {why}")
                refused[part[0].place] = why
            if why is None or len(part) == 1:
                continue
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]

    def _post(self, changes: Sequence[Change]) -> str | None:
        """Why the endpoint refuses the changes; None: it has taken them.

        Raises:
            TargetUnavailable: the endpoint is at fault.

        """
        self._wait()
        token = self._token()
        headers = {
            **self._headers,
            "Content-Type": "application/json",
            "Idempotency-Key": idempotency_key(changes),
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        try:
            status, text, retry_after = self._running().run(self._request(body_of(changes), headers))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = masked(str(error)) or type(error).__name__
            raise TargetUnavailable(f"{self._shown}: no answer: {said}") from None
        if 200 <= status < 300:
            return None
        if status in _OF_ROWS:
            return f"{self._shown} answers {status}: {text}"
        raise TargetUnavailable(f"{self._shown} answers {status}: {text}", retry_in_s=retry_after)

    async def _request(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, float | None]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_S_MAX))
        async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
            text = (await answer.content.read(ANSWER_BYTES_MAX)).decode(errors="replace")
            words = PERSONAL_MASK if self._masks_words else masked(" ".join(text.split()))
            return answer.status, words, _retry_after(answer.headers.get("Retry-After"))

    def _wait(self) -> None:
        """Wait until the next request is due."""
        if self._rate is None:
            return
        now_s = self._monotonic_s()
        if self._due_s > now_s:
            self._sleep(self._due_s - now_s)
        self._due_s = max(self._due_s, now_s) + 1 / self._rate

    def _check(self, partitions: Collection[int]) -> None:
        if unknown := set(partitions) - self._held:
            raise TakenOver(unknown)

    def _running(self) -> asyncio.Runner:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner

    @property
    def _shown(self) -> str:
        return self._url.partition("?")[0]


def _retry_after(value: str | None) -> float | None:
    """Seconds that the header asks for; None where it is missing, or a date."""
    return min(float(value), RETRY_AFTER_S_MAX) if value is not None and value.isascii() and value.isdigit() else None
