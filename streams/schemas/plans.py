"""Makes the decoding plan for a schema that a record names, with the registry."""

from streams.avro.framing import SchemaKey
from streams.avro.resolve import IncompatibleSchema, Plan, build_plan
from streams.batch.rejects import Reason, Reject
from streams.schemas.client import Registry, UnknownSchema, UnusableSchema


def plan_or_reject(registry: Registry, key: SchemaKey, reader: str) -> Plan | Reject:
    """The plan for values written with schema `key`, read with the schema text `reader`; or why there is none.

    The row of a reject is -1. The plan of a GUID has the id that the registry gives to it.

    Raises:
        RegistryUnavailable: no usable answer.

    """
    schema_id = key if isinstance(key, int) else None
    try:
        if schema_id is None:
            schema_id = registry.id_of_guid(str(key))
        return build_plan(schema_id, registry.schema_by_id(schema_id), reader)
    except UnknownSchema as error:
        return Reject(-1, Reason.UNKNOWN_SCHEMA, str(error), schema_id)
    except UnusableSchema as error:
        return Reject(-1, Reason.INCOMPATIBLE_SCHEMA, str(error), schema_id)
    except IncompatibleSchema as error:
        return Reject(-1, Reason.INCOMPATIBLE_SCHEMA, str(error), schema_id)
