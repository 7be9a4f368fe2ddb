"""Answers of the gateway: what became of each record of a request, or why the request was refused (RFC 9457)."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from streams.gateway.records import Rejection

JSON: Final = b"application/json"
PROBLEM: Final = b"application/problem+json"


class Refused(Exception):
    """A request is refused as a whole, before any of its records was sent (or with an outcome that is not known)."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        kind: str,
        retry_s: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`kind`: name for the metric. `retry_s`: after what time the sender may try again; 0: it need not try."""
        super().__init__(detail)
        self.status, self.kind, self.retry_s = status, kind, retry_s
        self.headers = dict(headers or {})


@dataclass(slots=True)
class Outcome:
    """What became of the records of a request."""

    event_ids: list[str | None]
    """Event id of each record, in the order of the records; None: the record has none."""
    duplicates: set[int] = field(default_factory=set)
    """Records whose id and time another one of the request has."""
    rejections: dict[int, tuple[Rejection, str]] = field(default_factory=dict)
    """By record: why, and the id of its dead letter."""

    @property
    def accepted(self) -> int:
        """Number of records that Kafka has acknowledged."""
        return len(self.event_ids) - len(self.duplicates) - len(self.rejections)

    @property
    def status(self) -> HTTPStatus:
        """202 when every record was accepted or is a duplicate, else 422."""
        return HTTPStatus.UNPROCESSABLE_ENTITY if self.rejections else HTTPStatus.ACCEPTED

    def body(self, *, minimal: bool) -> bytes:
        """As JSON; `minimal` leaves out records that were accepted."""
        results = (
            self._result(index)
            for index in range(len(self.event_ids))
            if not minimal or index in self.rejections or index in self.duplicates
        )
        counts = f'"accepted":{self.accepted},"duplicates":{len(self.duplicates)},"rejected":{len(self.rejections)}'
        return f'{{{counts},"results":[{",".join(results)}]}}\n'.encode()

    def _result(self, index: int) -> str:
        rejected = self.rejections.get(index)
        if rejected is not None:
            why, letter_id = rejected
            shown = {
                "index": index, "status": "rejected", "reason": why.reason.value, "message": why.message,
                "pointer": why.pointer, "dead_letter": letter_id,
            }  # fmt: skip
            return json.dumps(shown)
        status = "duplicate" if index in self.duplicates else "accepted"
        return f'{{"index":{index},"status":"{status}","event_id":{_quoted(self.event_ids[index])}}}'


def _quoted(text: str | None) -> str:
    return json.dumps(text)


def problem(refused: Refused) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Status, body and headers of a refusal."""
    shown: dict[str, Any] = {
        "type": "about:blank",
        "title": refused.status.phrase,
        "status": refused.status.value,
        "detail": str(refused),
    }
    headers = [(name.lower().encode(), value.encode()) for name, value in refused.headers.items()]
    if refused.retry_s > 0:
        headers.append((b"retry-after", str(max(1, math.ceil(refused.retry_s))).encode()))
    return refused.status.value, json.dumps(shown).encode() + b"\n", headers
