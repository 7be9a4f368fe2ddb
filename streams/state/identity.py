"""What state belongs to: the cluster, the topics by their ids, and the declaration that it was computed by.

Every journal record and every checkpoint carries it. A restore compares what it finds with what is declared and there
now (`judge`): state is used as it is, brought over column by column, or refused with the command that helps. It is not
merged with state of another life, and not read by position.
"""

import hashlib
import json
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Protocol

from streams.batch.rows import RowLayout
from streams.text import counted

EPOCH: Final = 1
"""Number of the partition layout; growing a topic in place begins another one."""
DIGEST_BYTES: Final = 4
_BYTES_MAX: Final = 1 << 20

SettingsByName = Mapping[str, Mapping[str, int]]
"""Numbers by name, of each topic or operator whose rows depend on them."""


class FlowTopics(Protocol):
    """The name of a flow and of its topics."""

    @property
    def name(self) -> str:
        """Of the flow."""

    @property
    def source(self) -> str:
        """Topic that it consumes."""

    @property
    def journal(self) -> str:
        """Topic that state is restored from."""

    @property
    def changelogs(self) -> tuple[str, ...]:
        """All topics that state is restored from."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Topics of what comes out, tables too, without dead letters."""

    @property
    def dlq(self) -> str:
        """Topic of dead letters."""

    @property
    def audit(self) -> str:
        """Topic of what was done about dead letters."""


def rebuild_command(flow: FlowTopics, source: str) -> str:
    """The command that rebuilds a flow's state from `local` state or from the `source`, as it stands in messages."""
    return f"`streams state rebuild --pipeline {flow.name} --from {source}`"


class IdentityUnreadable(ValueError):
    """The bytes are not an identity."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a flow's topics are now: the cluster's id, and of each topic the id that Kafka gave it at its creation."""

    cluster: str = ""
    """Empty: not known, and not compared."""
    topics: Mapping[str, str] = field(default_factory=dict)
    """Id by name; a topic that is missing here is not compared."""
    partitions: int = 0
    """Into how many partitions the state is divided; 0: not known, and not compared."""


@dataclass(frozen=True)
class Identity:
    """Of the state of one partition. What is empty is not known, and not compared."""

    cluster: str = ""
    epoch: int = EPOCH
    partitions: int = 0
    """Into how many partitions the state is divided: where a key's state is depends on it."""
    topics: Mapping[str, str] = field(default_factory=dict)
    """Topic id by name."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Which field of an event is its id, key, time and sequence."""
    payload: Mapping[str, str] = field(default_factory=dict)
    """Payload fields of held events, in their order, and the symbols of those that are enums."""
    texts: tuple[str, ...] = ()
    bounds: Mapping[str, int] = field(default_factory=dict)
    """What decides results beside the fields, by name: bounds in force, of the flow and of its operators."""
    tables: Mapping[str, int] = field(default_factory=dict)
    """Declared tables by topic, each with the offset of this partition from which its rows count."""
    partial: tuple[str, ...] = ()
    """Those of them that have rows of some keys only, by their declaration or since they were added to state that was
    there: what travels with the others' rows is not all there."""
    settings: SettingsByName = field(default_factory=dict)
    """Settings of operators that their rows depend on, by topic. In JSON they are called `windows`."""
    rows: Mapping[str, RowLayout] = field(default_factory=dict)
    """Layout of the rows that operators keep by key, by topic."""
    earlier: Mapping[str, tuple[str, RowLayout]] = field(default_factory=dict)
    """Topic and layout of rows that were written before a change, by digest."""

    def recreated(self, topics: Mapping[str, str]) -> set[str]:
        """Names of topics that have another id in `topics` than here: they were deleted and created again."""
        return {name for name, known in self.topics.items() if known and topics.get(name, known) not in {"", known}}

    @cached_property
    def text(self) -> str:
        """As a JSON document."""
        partial = {"partial": list(self.partial)} if self.partial else {}  # else as before there was such a thing
        return json.dumps(
            {
                **partial,
                "cluster": self.cluster,
                "epoch": self.epoch,
                "partitions": self.partitions,
                "topics": dict(self.topics),
                "fields": dict(self.fields),
                "payload": dict(self.payload),
                "texts": list(self.texts),
                "bounds": dict(self.bounds),
                "tables": dict(self.tables),
                "windows": {name: dict(settings) for name, settings in self.settings.items()},
                "rows": {name: layout.as_json() for name, layout in self.rows.items()},
                "earlier": {digest: [name, layout.as_json()] for digest, (name, layout) in self.earlier.items()},
            }
        )

    def as_dict(self) -> dict[str, Any]:
        """As a JSON document."""
        found: dict[str, Any] = json.loads(self.text)
        return found

    @cached_property
    def packed(self) -> bytes:
        """Bytes for a journal record."""
        return zlib.compress(self.text.encode())

    @staticmethod
    def unpack(data: bytes) -> "Identity":
        """Inverse of `packed`.

        Raises:
            IdentityUnreadable: the bytes are something else.

        """
        try:
            text = zlib.decompressobj().decompress(data, _BYTES_MAX)
            return Identity.from_json(json.loads(text))
        except (zlib.error, ValueError) as error:
            raise IdentityUnreadable(f"not an identity: {error}") from None

    @staticmethod
    def from_json(found: Any) -> "Identity":
        """Inverse of `json.loads(text)`.

        Raises:
            IdentityUnreadable: it is something else.

        """
        try:
            return Identity(
                **{
                    **{name: value for name, value in found.items() if name != "windows"},
                    "settings": found["windows"],
                    "texts": tuple(found["texts"]),
                    "partial": tuple(found.get("partial", ())),
                    "rows": {name: RowLayout.from_json(layout) for name, layout in found["rows"].items()},
                    "earlier": {
                        digest: (name, RowLayout.from_json(layout))
                        for digest, (name, layout) in found["earlier"].items()
                    },
                }
            )
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise IdentityUnreadable(f"not an identity: {error}") from None

    def is_divided_as(self, other: "Identity") -> bool:
        """Whether keys belong to the same partitions, as far as both say."""
        return self.partitions == other.partitions or 0 in {self.partitions, other.partitions}

    def divided(self) -> "Identity":
        """Only what it says of the division into partitions."""
        return Identity(epoch=self.epoch, partitions=self.partitions)

    def without(self, topics: Collection[str]) -> "Identity":
        """The same identity, as if it did not know the ids of `topics`."""
        return replace(self, topics={name: found for name, found in self.topics.items() if name not in topics})

    def layouts(self) -> dict[bytes, tuple[str, RowLayout]]:
        """Topic and layout of rows by digest: today's, and those of before a change."""
        known = {bytes.fromhex(digest): named for digest, named in self.earlier.items()}
        return known | {row_digest(topic, layout): (topic, layout) for topic, layout in self.rows.items()}

    def taking_over(self, found: "Identity", *, added_from: Mapping[str, int]) -> "Identity":
        """This identity for state that was written under `found`: knows the layouts of its rows.

        `added_from` is the end of the topic of each table that `found` did not have: older rows of it do not count.
        Where something travels with the rows of tables, such a table lacks that of keys without events since.
        """
        known = {digest.hex(): named for digest, named in found.layouts().items()}
        today = {row_digest(topic, layout).hex() for topic, layout in self.rows.items()}
        since = {name: added_from.get(name, found.tables.get(name, 0)) for name in self.tables}
        is_carried = any(name not in found.tables for name in found.rows)
        lacking = {*found.partial, *(self.tables.keys() - found.tables.keys())} if is_carried else set()
        return replace(
            self,
            tables=since,
            partial=tuple(name for name in self.tables if name in {*self.partial, *lacking}),
            earlier={key: known[key] for key in sorted(known) if key not in today},
        )

    def written_again(self, found: "Identity", lost: Collection[str]) -> "Identity":
        """This identity for state of `found` that a rebuild writes to Kafka again, rows of topics in `lost` from 0 on.

        Its bounds stay those of `found`: the restore that meets others does what follows from them.
        """
        return replace(self.taking_over(found, added_from=dict.fromkeys(lost, 0)), bounds=found.bounds)


def row_digest(topic: str, layout: RowLayout) -> bytes:
    """Digest of the topic and the layout of a stored row, in `DIGEST_BYTES`."""
    text = json.dumps([topic, layout.as_json()])
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a found identity means for state under a declared one."""

    refused: tuple[str, ...] = ()
    """Why the state cannot be used; each says what to do."""
    migrated: tuple[str, ...] = ()
    """What is converted, in words."""
    source_is_new: bool = False
    """The source is another topic of the same name: its offsets begin again, the state goes on."""
    recreated: frozenset[str] = frozenset()
    """Topics that were deleted and created again, of those that both sides know."""

    @property
    def is_same(self) -> bool:
        """Whether nothing has changed."""
        return not (self.refused or self.migrated or self.source_is_new)


@dataclass(frozen=True, slots=True)
class Consequences:
    """What changed numbers mean for existing state, in words."""

    refused: tuple[str, ...] = ()
    """Why the state cannot be used; each says what to declare instead."""
    migrated: tuple[str, ...] = ()
    """From when on the new numbers count, and for what."""


class Recorded(Protocol):
    """Something that records numbers with the state: a flow's bounds, an operator."""

    def judge_change(self, bounds: Mapping[str, int], settings: SettingsByName) -> Consequences:
        """What follows for state that was written under these numbers; one that is missing is not known."""


def judge(found: Identity, declared: Identity, flow: FlowTopics, recorded: Iterable[Recorded] = ()) -> Judgement:
    """Compare the identity of state with what is declared and there now.

    What numbers mean that have changed is known to those that record them.
    """
    local, again = rebuild_command(flow, "local"), rebuild_command(flow, "source")
    refused: list[str] = []
    migrated: list[str] = []
    if found.cluster and declared.cluster and found.cluster != declared.cluster:
        refused.append(
            f"the state was written in the cluster {found.cluster}, this one is {declared.cluster}: "
            f"its topics were copied from there. To begin here, run {again}"
        )
    if found.epoch != declared.epoch:
        refused.append(
            f"the state belongs to partition layout {found.epoch}, this version runs layout {declared.epoch}: "
            "run the version that has written it"
        )
    if not found.is_divided_as(declared):
        refused.append(
            f"the state is divided into {counted(found.partitions, 'partition')}, {flow.journal} has "
            f"{declared.partitions}: keys belong elsewhere than their state. Partitions cannot be added to a flow in "
            f"place yet; to process the source again with the new number, run {again}"
        )
    new = found.recreated(declared.topics)
    refused += [
        f"{name} was deleted and created again, and its rows are gone: where the workers' local state is still there, "
        f"{local} writes them again; else {again}"
        for name in flow.changelogs
        if name in new
    ]
    outputs = [name for name in flow.outputs if name not in flow.changelogs]
    refused += [
        f"{name} was deleted and created again: it lacks what the state is made of. To go on with the new topic, run "
        f"{local}; to fill it from the source's history, {again}"
        for name in outputs
        if name in new
    ]
    migrated += [f"{name} was deleted and created again" for name in (flow.dlq, flow.audit) if name in new]
    _judge_fields(found, declared, flow, refused, migrated)
    _judge_rows(found, declared, flow, refused, migrated)
    for one in recorded:
        consequences = one.judge_change(found.bounds, found.settings)
        refused += [f"{text}, or begin again with {again}" for text in consequences.refused]
        migrated += consequences.migrated
    return Judgement(tuple(refused), tuple(migrated), flow.source in new, frozenset(new))


def _judge_fields(
    found: Identity, declared: Identity, flow: FlowTopics, refused: list[str], migrated: list[str]
) -> None:
    again = rebuild_command(flow, "source")
    for role, name in found.fields.items():
        now = declared.fields.get(role, name)
        if now != name:
            refused.append(
                f"an event's {role} was the field {name} and is {now} now: what is remembered is of the old field. "
                f"Declare a flow with a new source topic, or begin again with {again}"
            )
    for name, before in found.payload.items():
        now = declared.payload.get(name, before)
        if now == before:
            continue
        old, new = before.split(","), now.split(",")
        if old != new[: len(old)] and new != old[: len(new)]:
            refused.append(
                f"the symbols of {name} were {before} and are {now} now: state holds their positions. "
                f"Add symbols at the end, or begin again with {again}"
            )
    if added := [name for name in (*declared.payload, *declared.texts) if name not in (*found.payload, *found.texts)]:
        migrated.append(f"fields {', '.join(added)} are read from now on; events that are held already have null there")
    if gone := [name for name in (*found.payload, *found.texts) if name not in (*declared.payload, *declared.texts)]:
        migrated.append(f"fields {', '.join(gone)} are no longer read")


def _judge_rows(found: Identity, declared: Identity, flow: FlowTopics, refused: list[str], migrated: list[str]) -> None:
    again = rebuild_command(flow, "source")
    for topic, layout in found.rows.items():
        now = declared.rows.get(topic)
        if now is None:
            what = "its rows are" if topic in found.tables else "its state, with what it has not written yet, is"
            migrated.append(f"{topic} is no longer declared: {what} dropped")
            continue
        if changed := layout.changed(now):
            refused.append(
                f"columns {', '.join(changed)} of {topic} had another type or meaning before: their values cannot be "
                f"carried over. Give the changed columns new names, or a new topic; or begin again with {again}"
            )
        elif added := layout.added(now):
            migrated.append(f"columns {', '.join(added)} of {topic} are new: they count from now on")
        if gone := now.added(layout):
            migrated.append(f"columns {', '.join(gone)} of {topic} are no longer declared: their values are dropped")
        if not changed and not gone and layout != now and not layout.added(now):
            migrated.append(f"columns of {topic} stand in another order")
    migrated += [f"{topic} is new: it counts from now on" for topic in declared.rows if topic not in found.rows]
    carried = [name for name in found.rows if name not in found.tables and name in declared.rows]
    complete = [name for name in found.tables if name not in found.partial] or list(found.tables)
    if carried and declared.tables.keys().isdisjoint(complete):
        others = [name for name in found.tables if name in found.partial and name in declared.tables]
        lacking = f" (only some keys have rows in {', '.join(others)})" if others else ""
        refused.append(
            f"rows of {', '.join(carried)} are kept with the rows of {', '.join(complete)}, and none of these "
            f"tables is declared any more{lacking}: keep one of them, or begin again with {again}"
        )
