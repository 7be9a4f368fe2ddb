"""Names of groups and transactional ids of the product's own tools, which no flow declares.

They are here, not with the tools, since rights are granted on them (`streams.acls`).
"""

from typing import Final

INGEST_PREFIX: Final = "streams.ingest."
"""Transactional ids of `streams ingest`, and groups that hold its progress: nobody consumes with them."""
PULL_PREFIX: Final = "streams.pull."
"""Likewise of `streams pull`, after the deployment's prefix; the name of the REST source follows."""
DLQ_PREFIX: Final = "streams.dlq."
"""Transactional ids of a replay or discard; the name of the source follows."""
REVIEW_GROUP: Final = "streams-dlq-review"
"""Group of readers of dead letters. Never joined: the client requires one."""
MONITOR_GROUP: Final = "streams-monitor"
"""Group of the monitor's reads of single records. Never joined."""
SCHEMAS_GROUP: Final = "streams-schemas"
"""Group of searches for records with a schema id. Never joined."""
GROW_PREFIX: Final = "streams.grow."
"""Transactional ids of `streams topics grow`; the name of the source follows."""
BACKFILL_PREFIX: Final = "streams.backfill."
"""Transactional ids of `streams backfill`; the name of the source follows."""
