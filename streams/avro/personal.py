"""Which fields of a schema hold personal data: those that say `"pii": true`."""

from typing import Any


def personal_fields(schema: Any) -> frozenset[str]:
    """Names of the fields of a schema, at any depth, that say `"pii": true`."""
    found: set[str] = set()
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            if node.get("pii") is True and isinstance(node.get("name"), str):
                found.add(node["name"])
            pending += [value for value in node.values() if isinstance(value, (list, dict))]
    return frozenset(found)
