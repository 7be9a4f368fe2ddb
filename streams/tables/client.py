"""Asks workers for rows and changes of tables, over HTTP; finds them by what Kafka knows of the flow's group."""

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from confluent_kafka import KafkaError

from streams.errors import StreamsError, UsageError
from streams.flow.declaration import Pipeline
from streams.kafka.admin import settled, wait_for_broker
from streams.kafka.group_positions import GroupPositions
from streams.limits import QUERY_ROWS_MAX
from streams.settings import Settings
from streams.tables.owners import owners_of
from streams.tables.rendering import JSON

TIMEOUT_S: Final = 30.0
_REQUEST_TIMEOUT_S: Final = 10.0
_LINE_BYTES_MAX: Final = 64 << 20

Parameters = Sequence[tuple[str, str]]


class NotFound(StreamsError):
    """The table has no row of the key."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A worker's answer to a request."""

    body: bytes
    headers: Mapping[str, str]

    @property
    def document(self) -> Any:
        """What it says as JSON.

        Raises:
            StreamsError: it is none.

        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise StreamsError("whoever has answered is no worker: the answer is no JSON") from None


class TableClient:
    """Asks one of several workers, any of which answers for a whole table; the next one where one does not answer."""

    def __init__(self, urls: Sequence[str], token: str | None) -> None:
        self._urls = list(urls)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def row(self, table: str, key: str, parameters: Parameters = (), *, accept: str = JSON) -> Answer:
        """The row of a key.

        Raises:
            NotFound: it has none.
            StreamsError: no worker answers, or the one that does refuses.

        """
        return self._answer(f"/tables/{quote(table, safe='')}/{quote(key, safe='')}", parameters, accept)

    def rows(self, table: str, parameters: Parameters = (), *, accept: str = JSON) -> Answer:
        """One page of rows. Raises: as `row`."""
        return self._answer(f"/tables/{quote(table, safe='')}", parameters, accept)

    def pages(self, table: str, parameters: Parameters, *, limit: int) -> Iterator[Any]:
        """Documents with at most `limit` rows together. Raises: as `row`."""
        cursor, left = "", limit
        while left > 0:
            page = [*parameters, ("limit", str(min(left, QUERY_ROWS_MAX)))]
            document = self.rows(table, [*page, ("cursor", cursor)] if cursor else page).document
            left -= len(document["rows"])
            yield document
            cursor = document["next"]
            if not cursor:
                return

    def changes(self, table: str, parameters: Parameters = (), *, since: str = "") -> Iterator[dict[str, Any]]:
        """Changes as they are committed, without end; each is a document of one event, with its `id`.

        Where the connection ends they go on after the last event, at another worker if need be.

        Raises:
            StreamsError: no worker answers, or this reader did not keep up, or is refused.

        """
        path = f"/tables/{quote(table, safe='')}/changes"
        while True:
            headers = {"Last-Event-ID": since} if since else {}
            with self._open(path, parameters, headers) as stream:
                for name, at, text in _events(stream):
                    since = at or since
                    if name == "cut_off":
                        raise StreamsError(json.loads(text)["reason"])
                    if name == "changes":
                        yield {**json.loads(text), "id": since}

    def _answer(self, path: str, parameters: Parameters, accept: str) -> Answer:
        with self._open(path, parameters, {"Accept": accept}) as response:
            return Answer(response.read(), dict(response.headers.items()))

    @contextmanager
    def _open(
        self, path: str, parameters: Parameters, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        target = f"{path}?{urlencode(list(parameters))}" if parameters else path
        why = ""
        for url in self._urls:
            place = urlsplit(url)
            connect = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
            connection = connect(place.hostname or "", place.port, timeout=TIMEOUT_S)
            try:
                try:
                    connection.request("GET", place.path.rstrip("/") + target, headers={**headers, **self._headers})
                    response = connection.getresponse()
                except (OSError, http.client.HTTPException) as error:
                    why = f"no worker answers at {url} ({error})"
                    continue
                if response.status == HTTPStatus.SERVICE_UNAVAILABLE and url != self._urls[-1]:
                    why = _words(response)
                    continue
                _require_ok(response, url)
                yield response
                return
            finally:
                connection.close()
        raise StreamsError(why)


def workers_of(settings: Settings, flow: Pipeline) -> list[str]:
    """Addresses of the workers of a flow.

    Raises:
        StreamsError: Kafka does not answer; or no worker runs that serves tables.

    """
    client = wait_for_broker(settings)
    asked = client.describe_consumer_groups([flow.group], request_timeout=_REQUEST_TIMEOUT_S)[flow.group]
    told: Any = settled(f"describing group {flow.group}", asked, fine=(KafkaError.GROUP_ID_NOT_FOUND,))
    given = [
        (one.client_id or "", [at.partition for at in one.assignment.topic_partitions if at.topic == flow.source])
        for one in ([] if told is None else told.members)
        if one.assignment is not None
    ]
    partitions = sorted({partition for _, some in given for partition in some})
    positions = GroupPositions(settings, group=flow.group, topics=[flow.source])
    try:
        found = owners_of(given, positions.committed(partitions) if partitions else {})
    finally:
        positions.close()
    urls = list(dict.fromkeys(owner.url for some in found.values() for owner in some))
    if not urls:
        raise StreamsError(
            f"no worker of {flow.name} runs, by group {flow.group}: start one with `streams worker`, or name one's "
            "address with --url"
        )
    return urls


def flow_of_table(flows: Sequence[Pipeline], table: str) -> Pipeline:
    """The flow that has the table.

    Raises:
        UsageError: none has.

    """
    found = next((flow for flow in flows if table in flow.table_topics), None)
    if found is None:
        there = ", ".join(sorted(topic for flow in flows for topic in flow.table_topics)) or "none"
        raise UsageError(f"no flow has a table {table!r}; there is: {there}")
    return found


def token_of(settings: Settings) -> str | None:
    """The token that permits most of those that are set here; None: there is none."""
    tokens = (
        settings.streams_admin_token, settings.streams_review_token_reveal, settings.streams_review_token_replay,
        settings.streams_review_token_read,
    )  # fmt: skip
    return next((token.get_secret_value() for token in tokens if token is not None), None)


def _events(stream: http.client.HTTPResponse) -> Iterator[tuple[str, str, str]]:
    """Name, id and data of each server-sent event, until the connection ends."""
    name = at = ""
    data: list[str] = []
    while True:
        try:
            line = stream.readline(_LINE_BYTES_MAX)
        except (OSError, http.client.HTTPException):
            return
        if not line:
            return
        field, _, value = line.decode().rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "id":
            at = value
        elif field == "data":
            data.append(value)
        elif not line.strip() and data:
            yield name, at, "\n".join(data)
            name, at, data = "", "", []


def _require_ok(response: http.client.HTTPResponse, url: str) -> None:
    if response.status == HTTPStatus.OK:
        return
    why = _words(response)
    if response.status == HTTPStatus.NOT_FOUND:
        raise NotFound(why)
    if response.status == HTTPStatus.BAD_REQUEST:
        raise UsageError(why)
    raise StreamsError(f"{url} answers with {response.status}: {why}")


def _words(response: http.client.HTTPResponse) -> str:
    try:
        return str(json.loads(response.read())["error"])
    except (ValueError, KeyError, TypeError):
        return f"{response.status} {response.reason}"
