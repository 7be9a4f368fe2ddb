"""Groups and transactional ids that no flow declares: what the product's own tools go by in a cluster.

They stand here, and not with the tools, since rights are granted on them (`streams.acls`).
"""

from typing import Final

INGEST_PREFIX: Final = "streams.ingest."
"""Transactional ids of `streams ingest`, and groups that hold its progress: nobody consumes with them."""
PULL_PREFIX: Final = "streams.pull."
"""Likewise of `streams pull`, after the deployment's prefix; the name of the REST source follows."""
DLQ_PREFIX: Final = "streams.dlq."
"""Transactional ids of a replay or discard; the name of the source follows."""
REVIEW_GROUP: Final = "streams-dlq-review"
"""Of who reads dead letters. Never joined: the client wants one."""
MONITOR_GROUP: Final = "streams-monitor"
"""Of who looks at single records for the monitor. Never joined."""
SCHEMAS_GROUP: Final = "streams-schemas"
"""Of who looks for records with a schema id. Never joined."""
GROW_PREFIX: Final = "streams.grow."
"""Transactional ids of `streams topics grow`; the name of the source follows."""
GROWTH_GROUP: Final = "streams-growth"
"""Of who reads growth topics. Never joined: the client wants one."""
FORWARDED_GROUP: Final = "streams-forwarded"
"""Of workers that read forwarded topics. Never joined, nor are offsets committed in it."""
VERSIONS_GROUP: Final = "streams-versions"
"""Of who reads versions topics. Never joined."""
BACKFILL_PREFIX: Final = "streams.backfill."
"""Transactional ids of `streams backfill`; the name of the source follows."""
