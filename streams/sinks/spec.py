"""Sinks as a flow declares them: what is copied where. `.to(postgres("vehicles"))`; `streams sink NAME` runs one.

Values only: nothing here connects anywhere, so that a flow can be declared without the libraries of its targets.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final
from urllib.parse import urlsplit

LINGER_MS_MAX: Final = 600_000
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_TABLE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}")
_FOLDER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}){0,7}")

_GROUP: Final = "streams.sink."


@dataclass(frozen=True, kw_only=True)
class SinkSpec:
    """A sink: a topic of the flow, and the target that its rows are copied into. See `postgres`, `delta` and `http`."""

    name: str
    """What `streams sink` calls it; unique within an app."""
    topic: str = ""
    """Topic that is read; empty: the one that the step before it writes."""
    key: tuple[str, ...] = ()
    """Fields that identify a row; empty: the flow's key field where the topic is compacted, else every record is a
    row."""
    linger_ms: int = 200
    """How long rows are gathered before they are written."""

    kind: ClassVar[str] = "sink"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"the name of a sink is 1 to 100 of A-Z, a-z, 0-9, _ and -, not {self.name!r}")
        if not 1 <= self.linger_ms <= LINGER_MS_MAX:
            raise ValueError(f"sink {self.name}: linger_ms is from 1 to {LINGER_MS_MAX}")
        if len(set(self.key)) < len(self.key):
            raise ValueError(f"sink {self.name}: a field is named twice in key={list(self.key)}")

    @property
    def where(self) -> str:
        """The target in a few words, without secrets."""
        raise NotImplementedError

    def with_topic(self, topic: str) -> "SinkSpec":
        """The same, reading another topic."""
        return replace(self, topic=topic)


@dataclass(frozen=True, kw_only=True)
class PostgresSpec(SinkSpec):
    """A table of the PostgreSQL database that `STREAMS_POSTGRES_URL` names."""

    table: str

    kind: ClassVar[str] = "postgres"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _TABLE.fullmatch(self.table):
            raise ValueError(f"{self.table!r} is no name of a table: letters, digits and _, a schema and a dot before")

    @property
    def where(self) -> str:
        """The table, as the target in words."""
        return f"table {self.table}"


@dataclass(frozen=True, kw_only=True)
class DeltaSpec(SinkSpec):
    """A Delta table below the folder or bucket that `STREAMS_DELTA_URL` names."""

    path: str
    day_of: str = ""
    """Field of a time by whose day, in UTC, the table is partitioned; empty: not partitioned."""

    kind: ClassVar[str] = "delta"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not _FOLDER.fullmatch(self.path):
            raise ValueError(f"{self.path!r} is no path below STREAMS_DELTA_URL: names of folders with / between them")

    @property
    def where(self) -> str:
        """The folder, as the target in words."""
        return f"Delta table {self.path}"


@dataclass(frozen=True, kw_only=True)
class HttpSpec(SinkSpec):
    """An endpoint that takes batches of changed rows as JSON."""

    url: str
    rows_max: int = 500
    rate: float | None = None
    """Requests a second at most."""
    headers: tuple[tuple[str, str], ...] = field(default=())

    kind: ClassVar[str] = "http"

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"sink {self.name}: the URL is http(s)://host/path")
        if parts.username or parts.password:
            raise ValueError(f"sink {self.name}: no password in the URL: STREAMS_HTTP_SINK_TOKEN is for that")
        if not 1 <= self.rows_max <= 10_000:
            raise ValueError(f"sink {self.name}: rows_max is from 1 to 10,000")
        if self.rate is not None and not 0 < self.rate <= 10_000:
            raise ValueError(f"sink {self.name}: rate is above 0 and at most 10,000 requests a second")

    @property
    def where(self) -> str:
        """The endpoint without its query, as the target in words."""
        return self.url.partition("?")[0]


def postgres(
    table: str, *, name: str = "", topic: str = "", key: Sequence[str] = (), linger_ms: int = 200
) -> PostgresSpec:
    """Copy rows into a table of PostgreSQL, each exactly once: `.fold(..., to=topic).to(postgres("vehicles"))`.

    The table is created by the topic's schema, and gets a column for each field that a later version adds. `table` may
    name a schema of the database: `mart.vehicles`. `STREAMS_POSTGRES_URL` names the database. `name` is what
    `streams sink` calls it, by default `postgres-<table>`. `key` names the fields that identify a row: by default the
    flow's key where the topic is compacted; where there is none, every record is a row.

    Raises:
        ValueError: a name cannot be used.

    """
    return PostgresSpec(
        name=name or f"postgres-{table.replace('.', '-')}", topic=topic, key=tuple(key), linger_ms=linger_ms,
        table=table,
    )  # fmt: skip


def delta(
    path: str, *, name: str = "", topic: str = "", key: Sequence[str] = (), day_of: str = "", linger_ms: int = 5_000
) -> DeltaSpec:
    """Copy rows into a Delta table, each exactly once: `.window(..., to=topic).to(delta("minutes"))`.

    `path` is below `STREAMS_DELTA_URL`, a folder or an object store. With `day_of`, a field of a time, the table is
    partitioned by its day in UTC (column `day`). A commit is a file: `linger_ms` says how long rows are gathered for
    one. The rest is as for `postgres`.

    Raises:
        ValueError: a name cannot be used.

    """
    return DeltaSpec(
        name=name or f"delta-{path.replace('/', '-').replace('.', '-')}", topic=topic, key=tuple(key),
        linger_ms=linger_ms, path=path, day_of=day_of,
    )  # fmt: skip


def http(
    url: str,
    *,
    name: str,
    topic: str = "",
    key: Sequence[str] = (),
    rows_max: int = 500,
    rate: float | None = None,
    headers: Sequence[tuple[str, str]] = (),
    linger_ms: int = 1_000,
) -> HttpSpec:
    """Post changed rows to an endpoint as JSON, each at least once, with ids by which it can tell a second time.

    A request has at most `rows_max` rows, and there are at most `rate` requests a second. `STREAMS_HTTP_SINK_TOKEN` is
    sent as a bearer token. The rest is as for `postgres`.

    Raises:
        ValueError: the URL or a number cannot be used.

    """
    return HttpSpec(
        name=name, topic=topic, key=tuple(key), linger_ms=linger_ms, url=url, rows_max=rows_max, rate=rate,
        headers=tuple(headers),
    )  # fmt: skip


def group_of(spec: SinkSpec, prefix: str) -> str:
    """Consumer group of the processes of a sink; the prefix is the deployment's."""
    return f"{prefix}{_GROUP}{spec.name}"


def sink_of(group: str) -> str | None:
    """The name of the sink whose processes are this group, whatever the deployment's prefix; None: it is no sink's."""
    _, found, name = group.partition(_GROUP)
    return name if found else None


def dead_letters_of(spec: SinkSpec, prefix: str) -> str:
    """Topic of records that are no row of the target."""
    return f"{prefix}sinks.{spec.name}.dlq"


def resolved(spec: SinkSpec, written: Sequence[str], place: str) -> SinkSpec:
    """The sink with its topic: its own, else the one of `written`, the topics that the step at `place` writes.

    Raises:
        ValueError: the step writes none, or several.

    """
    if spec.topic:
        return spec
    if len(written) != 1:
        raise ValueError(
            f"sink {spec.name} comes after {place}, which writes {'several topics' if written else 'no topic'}: put it "
            f"after .to(topic), .fold or .window, or say topic=..."
        )
    return spec.with_topic(written[0])
