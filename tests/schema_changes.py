"""Changes of a schema, each with the verdict on it in both directions: what gate, registry and decoder are held to."""

from dataclasses import dataclass
from typing import Any, Final

from streams.schemas.gate.findings import Direction

BACKWARD: Final = frozenset({Direction.BACKWARD})
FORWARD: Final = frozenset({Direction.FORWARD})
BOTH: Final = BACKWARD | FORWARD
NEITHER: Final[frozenset[Direction]] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an event's schema and the verdict of the Avro specification on it."""

    name: str
    old: tuple[dict[str, Any], ...]
    new: tuple[dict[str, Any], ...]
    readable: frozenset[Direction]
    """Backward: the new schema reads what the old one wrote. Forward: the old one reads what the new one writes."""
    old_name: str = "Event"
    new_name: str = "Event"
    new_attributes: tuple[tuple[str, Any], ...] = ()
    gate: tuple[str, ...] = ()
    """Rules of the gate's own that the change breaks beyond the specification (docs/adr/0020)."""

    @property
    def schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The schema before and after."""
        return _event(self.old_name, self.old), _event(self.new_name, self.new) | dict(self.new_attributes)


def _event(name: str, fields: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "logistics", "fields": [ID, *fields]}


def field(kind: Any, name: str = "x", **attributes: Any) -> dict[str, Any]:
    """A field of a schema."""
    return {"name": name, "type": kind, **attributes}


def enum(*symbols: str, name: str = "Kind", **attributes: Any) -> dict[str, Any]:
    """An enum type."""
    return {"type": "enum", "name": name, "symbols": list(symbols), **attributes}


def record(*fields: dict[str, Any], name: str = "Part", **attributes: Any) -> dict[str, Any]:
    """A record type."""
    return {"type": "record", "name": name, "fields": list(fields), **attributes}


def fixed(size: int, name: str = "Code", **attributes: Any) -> dict[str, Any]:
    """A fixed type."""
    return {"type": "fixed", "name": name, "size": size, **attributes}


def array(items: Any) -> dict[str, Any]:
    """An array type."""
    return {"type": "array", "items": items}


def mapping(values: Any) -> dict[str, Any]:
    """A map type."""
    return {"type": "map", "values": values}


def logical(kind: str, name: str, **attributes: Any) -> dict[str, Any]:
    """A type with a logical type."""
    return {"type": kind, "logicalType": name, **attributes}


ID: Final = field("string", "id")
MILLIS: Final = logical("long", "timestamp-millis")
A: Final = field("long", "a")
B: Final = field("long", "b")

CHANGES: Final = (
    # --- fields -------------------------------------------------------------------------------------------------------
    Change("nothing", (A,), (A,), BOTH),
    Change("a field with a default is added", (), (field("long", default=0),), BOTH),
    Change("a nullable field with default null is added", (), (field(["null", "double"], default=None),), BOTH),
    Change("a field without a default is added", (), (A,), FORWARD),
    Change("a nullable field without a default is added", (), (field(["null", "double"]),), FORWARD),
    Change("a field without a default is removed", (A,), (), BACKWARD),
    Change("a field with a default is removed", (field("long", default=0),), (), BOTH),
    Change("fields are reordered", (A, B), (B, A), BOTH),
    Change("a field is renamed", (A,), (B,), NEITHER),
    Change("a field is renamed, with an alias", (A,), (field("long", "b", aliases=["a"]),), BACKWARD),
    Change(
        "a field with a default is renamed",
        (field("long", "a", default=1),),
        (field("long", "b", default=1),),
        BOTH,
    ),
    Change("a default is added", (A,), (field("long", "a", default=7),), BOTH),
    Change("a default is removed", (field("long", "a", default=7),), (A,), BOTH),
    Change("a default is changed", (field("long", "a", default=7),), (field("long", "a", default=8),), BOTH),
    Change("a doc is changed", (field("long", doc="one"),), (field("long", doc="two"),), BOTH),
    # --- names of the record ------------------------------------------------------------------------------------------
    Change("the record is renamed", (A,), (A,), NEITHER, new_name="Occurrence"),
    Change(
        "the record is renamed, with an alias",
        (A,),
        (A,),
        BACKWARD,
        new_name="Occurrence",
        new_attributes=(("aliases", ["Event"]),),
    ),
    Change(
        "the record is renamed, with a full alias",
        (A,),
        (A,),
        BACKWARD,
        new_name="Occurrence",
        new_attributes=(("aliases", ["logistics.Event"]),),
    ),
    Change("the namespace is changed", (A,), (A,), BOTH, new_attributes=(("namespace", "freight"),)),
    # --- promotions ---------------------------------------------------------------------------------------------------
    Change("int to long", (field("int"),), (field("long"),), BACKWARD),
    Change("int to float", (field("int"),), (field("float"),), BACKWARD),
    Change("int to double", (field("int"),), (field("double"),), BACKWARD),
    Change("long to float", (field("long"),), (field("float"),), BACKWARD),
    Change("long to double", (field("long"),), (field("double"),), BACKWARD),
    Change("float to double", (field("float"),), (field("double"),), BACKWARD),
    Change("double to float", (field("double"),), (field("float"),), FORWARD),
    Change("string to bytes", (field("string"),), (field("bytes"),), BOTH, gate=("text_of_bytes",)),
    Change("string to long", (field("string"),), (field("long"),), NEITHER),
    Change("boolean to int", (field("boolean"),), (field("int"),), NEITHER),
    Change("long to string", (field("long"),), (field("string"),), NEITHER),
    # --- unions -------------------------------------------------------------------------------------------------------
    Change("a field becomes nullable", (field("double"),), (field(["null", "double"], default=None),), BACKWARD),
    Change("a field is no longer nullable", (field(["null", "double"], default=None),), (field("double"),), FORWARD),
    Change("a nullable field is promoted", (field(["null", "int"]),), (field(["null", "double"]),), BACKWARD),
    Change("branches change places", (field(["null", "long"]),), (field(["long", "null"]),), BOTH),
    Change("a branch is added", (field(["null", "long"]),), (field(["null", "long", "string"]),), BACKWARD),
    Change("a branch is removed", (field(["null", "long", "string"]),), (field(["null", "long"]),), FORWARD),
    Change("a branch covers another", (field(["int", "long"]),), (field("long"),), BOTH),
    # --- enums --------------------------------------------------------------------------------------------------------
    Change("a symbol is added", (field(enum("A", "B")),), (field(enum("A", "B", "C")),), BACKWARD),
    Change("a symbol is removed", (field(enum("A", "B", "C")),), (field(enum("A", "B")),), FORWARD),
    Change("symbols change places", (field(enum("A", "B")),), (field(enum("B", "A")),), BOTH),
    Change(
        "a symbol is removed, with a default",
        (field(enum("A", "B", "C")),),
        (field(enum("A", "B", default="A")),),
        BOTH,
    ),
    Change(
        "a symbol is added where there is a default",
        (field(enum("A", "B", default="A")),),
        (field(enum("A", "B", "C", default="A")),),
        BOTH,
    ),
    Change("an enum is renamed", (field(enum("A")),), (field(enum("A", name="Sort")),), NEITHER),
    Change(
        "an enum is renamed, with an alias",
        (field(enum("A")),),
        (field(enum("A", name="Sort", aliases=["Kind"])),),
        BACKWARD,
    ),
    Change(
        "a nullable enum gets a symbol", (field(["null", enum("A")]),), (field(["null", enum("A", "B")]),), BACKWARD
    ),
    Change("enum to string", (field(enum("A", "B")),), (field("string"),), NEITHER),
    # --- nested types -------------------------------------------------------------------------------------------------
    Change(
        "a nested record gets a field with a default",
        (field(record(A)),),
        (field(record(A, field("long", "b", default=0))),),
        BOTH,
    ),
    Change("a nested record gets a field without a default", (field(record(A)),), (field(record(A, B)),), FORWARD),
    Change("a nested record loses a field", (field(record(A, B)),), (field(record(A)),), BACKWARD),
    Change(
        "a field of a nested record is promoted", (field(record(field("int", "a"))),), (field(record(A)),), BACKWARD
    ),
    Change("a nested record is renamed", (field(record(A)),), (field(record(A, name="Piece")),), NEITHER),
    Change(
        "a record in a union gets a field without a default",
        (field(["null", record(A)]),),
        (field(["null", record(A, B)]),),
        FORWARD,
    ),
    Change(
        "a record in an array gets a field with a default",
        (field(array(record(A))),),
        (field(array(record(A, field("long", "b", default=0)))),),
        BOTH,
    ),
    Change("a record in an array loses a field", (field(array(record(A, B))),), (field(array(record(A))),), BACKWARD),
    Change("items are promoted", (field(array("int")),), (field(array("long")),), BACKWARD),
    Change("items become another type", (field(array("string")),), (field(array("long")),), NEITHER),
    Change("values of a map are promoted", (field(mapping("float")),), (field(mapping("double")),), BACKWARD),
    Change("values of a map become nullable", (field(mapping("long")),), (field(mapping(["null", "long"])),), BACKWARD),
    Change("array to map", (field(array("long")),), (field(mapping("long")),), NEITHER),
    Change("a fixed type gets another size", (field(fixed(4)),), (field(fixed(8)),), NEITHER),
    Change("a fixed type is renamed", (field(fixed(4)),), (field(fixed(4, name="Tag")),), NEITHER),
    # --- logical types ------------------------------------------------------------------------------------------------
    Change(
        "a long becomes a timestamp",
        (field("long"),),
        (field(logical("long", "timestamp-millis")),),
        BOTH,
    ),
    Change(
        "milliseconds become microseconds",
        (field(logical("long", "timestamp-millis")),),
        (field(logical("long", "timestamp-micros")),),
        BOTH,
        gate=("meaning_changed",),
    ),
    Change(
        "a decimal gets another scale",
        (field(logical("bytes", "decimal", precision=9, scale=2)),),
        (field(logical("bytes", "decimal", precision=9, scale=3)),),
        BOTH,
        gate=("meaning_changed",),
    ),
    Change(
        "a decimal gets a larger precision",
        (field(logical("bytes", "decimal", precision=9, scale=2)),),
        (field(logical("bytes", "decimal", precision=12, scale=2)),),
        BOTH,
    ),
    Change(
        "a date becomes a timestamp",
        (field(logical("int", "date")),),
        (field(MILLIS),),
        BACKWARD,
        gate=("meaning_changed",),
    ),
    Change(
        "a nullable date becomes a nullable timestamp",
        (field(["null", logical("int", "date")], default=None),),
        (field(["null", MILLIS], default=None),),
        BACKWARD,
        gate=("meaning_changed",),
    ),
    Change(
        "a date becomes a nullable timestamp",
        (field(logical("int", "date")),),
        (field(["null", MILLIS], default=None),),
        BACKWARD,
        gate=("meaning_changed",),
    ),
    Change(
        "a date becomes the timestamp of a larger union",
        (field(["null", logical("int", "date")]),),
        (field(["string", MILLIS, "null"]),),
        BACKWARD,
        gate=("meaning_changed",),
    ),
    Change(
        "a time of day becomes one in microseconds",
        (field(["null", logical("int", "time-millis")]),),
        (field(["null", logical("long", "time-micros")]),),
        BACKWARD,
        gate=("meaning_changed",),
    ),
    Change(
        "a timestamp becomes a local one",
        (field(MILLIS),),
        (field(logical("long", "local-timestamp-millis")),),
        BOTH,
        gate=("meaning_changed",),
    ),
    Change(
        "microseconds become nanoseconds",
        (field(logical("long", "timestamp-micros")),),
        (field(logical("long", "timestamp-nanos")),),
        BOTH,
        gate=("meaning_changed",),
    ),
    Change(
        "milliseconds become microseconds in an array",
        (field(array(MILLIS)),),
        (field(array(logical("long", "timestamp-micros"))),),
        BOTH,
        gate=("meaning_changed",),
    ),
    Change(
        "milliseconds become microseconds in a map",
        (field(mapping(["null", MILLIS])),),
        (field(mapping(["null", logical("long", "timestamp-micros")])),),
        BOTH,
        gate=("meaning_changed",),
    ),
    Change(
        "a date of a record in a union becomes a timestamp",
        (field(["null", record(field(logical("int", "date"), "at"))]),),
        (field(["null", record(field(MILLIS, "at"))]),),
        BACKWARD,
        gate=("meaning_changed",),
    ),
    Change("a timestamp becomes a double", (field(MILLIS),), (field("double"),), BACKWARD),
    Change("an int becomes a timestamp", (field("int"),), (field(MILLIS),), BACKWARD),
    Change(
        "a nullable decimal gets another scale",
        (field(["null", logical("bytes", "decimal", precision=9, scale=2)]),),
        (field(["null", logical("bytes", "decimal", precision=9, scale=4)]),),
        BOTH,
        gate=("meaning_changed",),
    ),
    Change(
        "a decimal in a fixed gets another scale",
        (field(fixed(8, logicalType="decimal", precision=9, scale=2)),),
        (field(fixed(8, logicalType="decimal", precision=9, scale=4)),),
        BOTH,
        gate=("meaning_changed",),
    ),
    Change(
        "a string becomes a decimal",
        (field("string"),),
        (field(logical("bytes", "decimal", precision=9, scale=2)),),
        BOTH,
        gate=("meaning_changed", "text_of_bytes"),
    ),
    Change(
        "a nullable string becomes a nullable decimal",
        (field(["null", "string"]),),
        (field(["null", logical("bytes", "decimal", precision=9, scale=2)]),),
        BOTH,
        gate=("meaning_changed", "text_of_bytes"),
    ),
    Change(
        "a duration loses its logical type",
        (field(fixed(12, logicalType="duration")),),
        (field(fixed(12)),),
        BOTH,
    ),
    Change(
        "a string becomes a uuid",
        (field("string"),),
        (field(logical("string", "uuid")),),
        BOTH,
    ),
    # --- what the engine refuses to decode ----------------------------------------------------------------------------
    Change(
        "a type that contains itself is added",
        (),
        (field(["null", record(field(["null", "Node"], "next"), name="Node")], default=None),),
        BOTH,
        gate=("unbounded",),
    ),
    Change("an array of nothing is added", (), (field(array("null"), default=[]),), BOTH, gate=("unbounded",)),
)


@dataclass(frozen=True, slots=True)
class Default:
    """A field that is added with a default, and what there is to say of the default."""

    name: str
    kind: Any
    default: Any
    fits: bool
    """Whether it is a value of its type, of a union's first branch: the gate's verdict."""
    registry: bool
    """Whether the local registry takes the version: it looks at less."""

    @property
    def schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The schema before and after."""
        return _event("Event", ()), _event("Event", (field(self.kind, default=self.default),))


DEFAULTS: Final = (
    Default("a number", "long", 7, fits=True, registry=True),
    Default("a whole number for a double", "double", 0, fits=True, registry=True),
    Default("bytes", "bytes", "\u00ff", fits=True, registry=True),
    Default("null of a union", ["null", "long"], None, fits=True, registry=True),
    Default("a symbol", enum("GAS"), "GAS", fits=True, registry=True),
    Default("a fixed", fixed(2), "ab", fits=True, registry=True),
    Default("a record whose fields have defaults", record(field("long", "v", default=0)), {}, fits=True, registry=True),
    Default("a record", record(field("long", "v")), {"v": 1}, fits=True, registry=True),
    Default("items", array("long"), [1, 2], fits=True, registry=True),
    Default("values", mapping("long"), {"a": 1}, fits=True, registry=True),
    Default("text for a number", "long", "0", fits=False, registry=False),
    Default("a fraction for a whole number", "long", 0.5, fits=False, registry=False),
    Default("a number beyond an int", "int", 3_000_000_000, fits=False, registry=False),
    Default("a number beyond a long", "long", 2**63, fits=False, registry=False),
    Default("a number beyond a float", "float", 1e300, fits=False, registry=True),
    Default("text for not a number", "double", "NaN", fits=False, registry=True),
    Default("a number for a boolean", "boolean", 1, fits=False, registry=False),
    Default("a value of the second branch", ["null", "long"], 0, fits=False, registry=True),
    Default("the text null", ["null", "string"], "null", fits=False, registry=True),
    Default("an unknown symbol", enum("GAS"), "OIL", fits=False, registry=True),
    Default("a record that leaves a field out", record(field("long", "v")), {}, fits=False, registry=False),
    Default("a wrong field of a record", record(field("long", "v")), {"v": "1"}, fits=False, registry=False),
    Default("a fixed that is too short", fixed(4), "ab", fits=False, registry=True),
    Default("no byte", "bytes", "\u0100", fits=False, registry=True),
    Default("a wrong item", array("long"), [1, "2"], fits=False, registry=False),
    Default("a wrong value", mapping("long"), {"a": None}, fits=False, registry=False),
    Default("half a character", "string", "\ud800", fits=False, registry=True),
)
