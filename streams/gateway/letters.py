"""Dead letters of a gateway: as a worker writes them, so that `streams dlq` lists, shows, replays and discards them.

A record that never was in the source has no place there (partition and offset -1): its id comes of its bytes, so a
sender that sends the same bytes again makes no second letter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from streams.batch.columns import Headers
from streams.batch.rejects import DeadLetter, Reject
from streams.deadletters.letter.envelope import DLQ_ID, envelope_headers
from streams.flow.declaration import Pipeline
from streams.gateway.records import Rejection

GROUP: Final = "streams.gateway"
CONTENT_TYPE: Final = "gateway.content_type"
FORMAT: Final = "gateway.format"
POINTER: Final = "gateway.pointer"
SENDER: Final = "gateway.sender"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the records of a request come from, as headers of its dead letters say."""

    sender: str
    """Name of the credential; never the credential."""
    content_type: str
    format: str = ""

    def headers(self, rejection: Rejection) -> Headers:
        """What a dead letter says of the request beside its envelope."""
        named = (
            (SENDER, self.sender),
            (CONTENT_TYPE, self.content_type),
            (FORMAT, self.format),
            (POINTER, rejection.pointer),
        )
        return [(name, value.encode(errors="replace")) for name, value in named if value]


@dataclass(frozen=True, slots=True)
class Letters:
    """Dead letters of a request: columns of equal length."""

    keys: list[bytes | None]
    values: list[bytes]
    headers: list[Headers | None]
    ids: list[str]


def letters_of(
    pipeline: Pipeline,
    rejected: Mapping[int, tuple[Rejection, bytes | None, bytes]],
    origin: Origin,
    *,
    now_ms: int,
) -> Letters:
    """Dead letters of rejected records: why, key and bytes of each."""
    found = Letters([], [], [], [])
    for index, (rejection, key, value) in rejected.items():
        reject = Reject(index, rejection.reason, rejection.message, rejection.schema_id)
        letter = DeadLetter(reject, -1, -1, now_ms, key, value, origin.headers(rejection))
        headers = envelope_headers(letter, source=pipeline.source, group=pipeline.prefix + GROUP, now_ms=now_ms)
        found.keys.append(key)
        found.values.append(value)
        found.headers.append(headers)
        found.ids.append(next(given.decode() for name, given in headers if name == DLQ_ID and given is not None))
    return found
