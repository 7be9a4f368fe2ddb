"""Every bound of the engine in one place, with the relations between them checked at import.

Names are `thing_unit_qualifier`. A bound that users may change is a setting with its default here (`streams.settings`).
"""

from typing import Final

# --- intake ---------------------------------------------------------------------------------------------------------
BATCH_RECORDS_MAX: Final = 20_000
"""Records of one micro-batch: fixed costs per batch fall with it (5,000 costs 20% more CPU per event)."""
BATCH_SHARE: Final = 1 / 64
"""Share of a flow's memory for one micro-batch, roughly: large records come in smaller batches.

Several are in memory.
"""
BATCH_WAIT_MS: Final = 180
"""How long intake gathers records of a live stream for a micro-batch, if a commit cycle is not shorter: about one
micro-batch for each cycle costs least, and the events wait as long for their commit as with several."""
BATCH_WAIT_MS_MIN: Final = 20
"""The same bound for short commit cycles."""
QUIET_WAIT_MS: Final = 100
"""How long intake waits where nothing came before: an idle worker wakes up this often."""
FETCH_WAIT_MS: Final = 50
"""How long the broker gathers records for a fetch."""
REST_MS_MAX: Final = 500
"""A worker without work still runs a step this often."""
CHANNEL_BATCHES_MAX: Final = 2
"""Micro-batches waiting for the agent; beyond this, intake stops consuming."""
POLL_BLOCKED_MS_MAX: Final = 2_000
"""Intake blocked this long by a slow agent pauses its partitions and goes on polling, so that the group keeps it."""
IDLE_ASK_INTERVAL_MS: Final = 1_000
"""The high watermark of a partition at its end is read this often, or four times within `STREAMS_IDLE_MS`."""
IDLE_ASK_INTERVAL_MS_MIN: Final = 100
"""Minimum time between two such reads, however short `STREAMS_IDLE_MS` is."""
IDLE_GAP_MS_MAX: Final = 3_000
"""Idle time starts over when the broker has not confirmed the end of the log for longer than this."""
OPEN_TRANSACTION_SAID_MS: Final = 10_000
"""An open transaction on the source is reported once it has held up its partition for this long. Shorter ones are usual
for transactional producers, and lag below this is on time."""
RECORDS_LOST_SAID_MS: Final = 3_600_000
"""`/readyz` names records that were deleted unread for this long; the metric keeps the number until the worker ends."""

RECORD_TIMESTAMP_MS_MIN: Final = 10**12
"""2001-09-09: a record timestamp before it is none (-1, 0), or seconds for milliseconds, and says nothing (ADR 16)."""

# --- group ----------------------------------------------------------------------------------------------------------
SESSION_TIMEOUT_MS: Final = 10_000
"""A dead worker's partitions are given to others after this time (classic protocol; else the broker's setting)."""
HEARTBEAT_INTERVAL_MS: Final = 1_000
"""A rebalance is heard of this late, twice when partitions move: with librdkafka's 3 s a join took 6 s, now 2 s."""
SPARE_AFTER_MS: Final = 15_000
"""A member of the group that has had no partition for this long is a spare: a rebalance, in two rounds and with
`REVOKE_TIMEOUT_MS` for those who let go, is over."""
UNRELEASED_WAIT_MS_MAX: Final = 120_000
"""How long a worker waits for the broker to forget its own earlier session (consumer protocol; the broker's session
timeout is 45 s by default) before it takes it for another worker; how long a fence of its consumer is remembered."""

# --- keys in the wrong partition ------------------------------------------------------------------------------------
MISROUTED_KEYS_LOGGED: Final = 5
"""Keys of one partition that a log line names, each shortened to `KEY_BYTES_LOGGED`."""
KEY_BYTES_LOGGED: Final = 64
MISROUTED_LOG_INTERVAL_MS: Final = 60_000
"""Misrouted keys of a flow are logged once within this time."""
MISROUTED_SAID_MS: Final = 3_600_000
"""`/readyz` reports misrouted events for this long after the last one."""

# --- commit cycle ---------------------------------------------------------------------------------------------------
CYCLE_RECORDS_MAX: Final = 200_000
"""Records of one commit cycle: bounds what is in the producer's queue and what an abort repeats."""
PRODUCER_QUEUE_MESSAGES_MAX: Final = 1_000_000
PRODUCER_QUEUE_KBYTES_MAX: Final = 262_144
JOURNAL_RECORD_BYTES_MAX: Final = 900_000
"""A journal record is split above this; the broker's default `message.max.bytes` is 1,048,588."""
GROWTH_QUIET_MS: Final = 600_000
"""After this long without a record in its pre-growth partition, all producers count as switched."""
COUPLED_RECORDS_MAX: Final = 20_000
"""Records of one input of a new partition that wait for the other input: above this it is paused."""
COUPLED_BYTES_MAX: Final = 32 << 20
"""The same of all partitions of a flow in a worker: then all inputs of which records wait are paused."""
TRANSACTION_TIMEOUT_MS: Final = 15_000
"""A dead worker's open transaction blocks readers for this long at most."""
REBUILD_TRANSACTION_MS: Final = 600_000
"""A rebuild writes all state of a partition in one transaction (the broker allows 15 minutes by default)."""
REVOKE_TIMEOUT_MS: Final = 10_000
"""A revoked partition is released within this time, committed or not."""
RESTORE_WAIT_MS_MAX: Final = 60_000
"""How long a restore waits for another worker's transaction to end before it fails."""

RESTORES_MAX: Final = 4
"""Partitions restored at the same time, each with a changelog reader; one that pauses makes room for another."""
RESTORE_PATIENCE_MS: Final = 2_000
"""How long a restore waits in its place for other transactions to end; after this it pauses and frees the place."""
OUTPUT_AGE_MS_MAX: Final = 3_600_000
"""Oldest timestamp of an output record, counted back from its write: retention counts from the timestamp."""
OUTPUT_AGE_RETENTION_SHARE: Final = 8
"""That age is at most this fraction of the output topic's retention, so that a record lives for the rest of it."""

REFUSAL_SEARCH_MS: Final = 60_000
"""How long after a refusal every output record has a delivery report: it costs about a third of the throughput."""
REFUSALS_KEPT_MAX: Final = 10_000
"""Refusals of outputs that a flow remembers; an older one costs an aborted cycle when it is met again."""
# --- memory ---------------------------------------------------------------------------------------------------------
RUNTIME_MB: Final = 160
"""What a worker takes before its first record: interpreter, libraries, threads. The rest of the setting is for data."""

# --- state ----------------------------------------------------------------------------------------------------------
ID_BYTES_MAX: Final = 128
"""Longest event id, in bytes of UTF-8."""
KEY_BYTES_MAX: Final = 1_024
"""Longest record key of an event, in bytes: keys go into table rows, the journal and the key index of a partition."""
DEDUP_PAGE_IDS: Final = 256
"""Ids in one spilled page: 6 KB, one RocksDB row."""
DEDUP_BUCKET_MS: Final = 60_000
"""Width of an event-time bucket of spilled ids."""
JOIN_MATCHES_DEFAULT: Final = 100
"""Events of the other side that one event of an interval join is joined with at most, where nothing is declared."""
JOIN_MATCHES_MAX: Final = 10_000
"""What may be declared: all joined rows of a micro-batch are in memory together."""
CHECKPOINT_INTERVAL_MS: Final = 30_000
"""RocksDB is flushed this often: what a crash makes the journal replay."""
SCAN_SIGN_ROWS: Final = 4_096
"""Rows of a store read in one scan after which the reader shows that it lives."""
JOURNAL_INDEX_RECORDS: Final = 256
"""Journal records whose event times are remembered together: the granularity of truncation and of replay."""

SNAPSHOT_PART_BYTES: Final = 1 << 20
"""Bytes of an object that are in memory at once while it is read."""
SNAPSHOT_MANIFEST_BYTES_MAX: Final = 4 << 20
"""Larger manifests are not ours: they would name some 20,000 files."""
SNAPSHOT_GRACE_MS: Final = 3_600_000
"""An object that no manifest names is deleted when it is this old, a manifest when it has not been among the kept ones
for this long: a restore that has chosen it, or an upload without a manifest yet, has this much time."""
SNAPSHOT_AGE_MS_MAX: Final = 72_000_000
"""Older snapshots are not restored: a compacted topic keeps a deletion for 24 hours (`delete.retention.ms`), so that
deleted rows would come back.
"""
STORE_AGE_MS_MAX: Final = SNAPSHOT_AGE_MS_MAX
"""A local store that has missed cycles, and was complete longer ago, is not brought forward, for the same reason."""
STORE_NOTE_MS_MAX: Final = 3_600_000
"""A worker that was held up for longer does not note that its stores are complete: others may have had them."""

WHOLE_NUMBER_MAX: Final = 2**53
"""Largest whole number of a payload field, by its magnitude: they are doubles, and beyond it not every one is exact."""

# --- schemas --------------------------------------------------------------------------------------------------------
UNKNOWN_SCHEMA_TTL_MS: Final = 30_000
"""An id that the registry says it does not have is not asked for again within this time."""
SCHEMA_NODES_MAX: Final = 2_000
"""Types of a schema, references spelt out, up to which it is decoded in columns; a larger one record by record."""
FIXED_BYTES_MAX: Final = 4_096
"""Largest fixed type that is decoded in columns."""
NATIVE_DEPTH_MAX: Final = 32
"""Types within types up to which records are decoded natively: the library walks down to them on its stack."""
SCHEMA_LABELS_MAX: Final = 500
"""Label sets of a schema metric; ids beyond are counted together, so that nobody can fill the memory with ids."""
MISMATCH_LOG_INTERVAL_MS: Final = 60_000
"""A mismatch of a schema id is logged once within this time."""
SCHEMAS_MAX: Final = 1_000
"""Decoding plans kept per flow, about 11 kB each; the least recently used is built again when it is needed."""
SCHEMA_REFERENCES_MAX: Final = 256
"""Registered schemas that one may refer to, directly or through others: each is a request to the registry."""
UNKNOWN_SCHEMAS_MAX: Final = 20_000
"""Ids that the registry does not have, remembered per flow; the oldest is asked for again when it is next met."""
SCHEMA_LOOKUPS_MAX: Final = 256
"""Ids looked up before the records that wait are processed as far as they go: a device that sends junk is quarantined
by then, and its other ids are never asked for."""
SCHEMA_LOOKUPS_AT_ONCE: Final = 8
"""Look-ups under way at the same time."""

# --- files and dead letters into topics (`streams.sinks.paced`) -------------------------------------------------------
WRITER_RECORDS_MAX: Final = 50_000
WRITER_BYTES_MAX: Final = 48 * 1024 * 1024
"""Records of one transaction, and their bytes, about: a portion is not divided."""

# --- sinks (`streams.sink`) -------------------------------------------------------------------------------------------
SINK_RECORDS_MAX: Final = 50_000
"""Records of one write; of a Delta table, where a commit is a file and a new version, ten times as many."""
SINK_BATCH_SHARE: Final = 1 / 16
"""Share of the memory setting that the values of records gathered for a write may use."""

# --- tables that are asked (`streams.tables`) ---------------------------------------------------------------------
QUERY_ROWS_DEFAULT: Final = 100
QUERY_ROWS_MAX: Final = 10_000
"""Rows of one answer; further ones are read with its cursor."""
QUERY_SCAN_ROWS_MAX: Final = 200_000
"""Rows that a worker reads for one answer; where conditions leave few of them, the answer has fewer than asked for."""
QUERY_SCANS_AT_ONCE: Final = 2
"""Threads that read ranges, of one worker."""
QUERY_SCANS_WAITING_MAX: Final = 64
"""Requests for ranges that wait for one of them; one more is refused (503)."""
QUERY_WAIT_MS_MAX: Final = 8_000
"""How long a request waits for an owner of its partitions, across rebalances and restores, before it is refused."""
QUERY_OWNERS_INTERVAL_MS: Final = 1_000
"""The group is asked for its members this often, while a request needs to know."""
CHANGES_CLIENTS_MAX: Final = 100
"""Readers of change streams, of one worker; one more is refused (503)."""
CHANGES_QUEUE_BYTES_MAX: Final = 8 * 1024 * 1024
"""What waits for one reader of changes; one that falls behind by more is cut off."""
CHANGES_RECORDS_MAX: Final = 2_000
"""Greatest number of changes in one server-sent event."""

# --- gateway (`streams.gateway`) -------------------------------------------------------------------------------------
GATEWAY_REQUEST_RECORDS_MAX: Final = 10_000
"""Greatest number of records in one request."""
GATEWAY_SLICE_RECORDS_MAX: Final = 1_000
"""Records that are converted in one go, of one request or of several that wait: between two the event loop is free."""
GATEWAY_BODIES_BYTES_MAX: Final = 128 * 1024 * 1024
"""Bodies of all requests of a process that are under way, packed and unpacked; beyond it requests are refused (503)."""
GATEWAY_IN_FLIGHT_RECORDS_MAX: Final = 100_000
GATEWAY_IN_FLIGHT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Records given to the producer and not yet acknowledged; beyond it requests are refused (503)."""
GATEWAY_CONNECTIONS_MAX: Final = 4_096
"""Connections of a process; a request on one more is refused (503)."""
GATEWAY_HEAD_BYTES_MAX: Final = 32 * 1024
"""Greatest size of a request's line and headers."""
GATEWAY_HEAD_S_MAX: Final = 10.0
"""How long request line and headers may take to arrive, from the first byte on."""
GATEWAY_BODY_S_MAX: Final = 30.0
"""How long a body may take to arrive."""
GATEWAY_DELIVERY_MS_MAX: Final = 10_000
"""How long Kafka may take to acknowledge a record; then the request is answered with 503."""
GATEWAY_GRACE_S: Final = 15
"""How long requests under way may take once the gateway is told to stop; longer than a delivery."""
GATEWAY_WEBHOOK_WINDOW_S: Final = 300
"""How far the timestamp of a signed webhook may be from the clock of this machine, either way."""
GATEWAY_WEBHOOKS_KEPT_MAX: Final = 100_000
"""Signatures of accepted webhooks that are remembered within that window."""
GATEWAY_SENDERS_KEPT_MAX: Final = 10_000
"""Senders whose rate and malformed requests are remembered; the one that was quiet longest is forgotten first."""
GATEWAY_FIELDS_COUNTED_MAX: Final = 200
"""Names of unexpected fields that are counted by themselves, of each source; others are counted together."""

# --- dead letters ---------------------------------------------------------------------------------------------------
DLQ_ATTEMPTS_MAX: Final = 5
"""A dead letter that has failed this often is not replayed unless --attempts-max says so."""

# Relations that must hold for the guarantees to hold.
assert HEARTBEAT_INTERVAL_MS * 3 <= SESSION_TIMEOUT_MS  # noqa: S101
assert REVOKE_TIMEOUT_MS < TRANSACTION_TIMEOUT_MS  # noqa: S101
assert REVOKE_TIMEOUT_MS + 2 * HEARTBEAT_INTERVAL_MS < SPARE_AFTER_MS  # noqa: S101
assert SCHEMA_LOOKUPS_MAX <= SCHEMAS_MAX <= UNKNOWN_SCHEMAS_MAX  # noqa: S101
assert BATCH_RECORDS_MAX <= CYCLE_RECORDS_MAX  # noqa: S101
assert CYCLE_RECORDS_MAX * 2 <= PRODUCER_QUEUE_MESSAGES_MAX  # noqa: S101
assert JOURNAL_RECORD_BYTES_MAX < 1_000_000  # noqa: S101
assert IDLE_ASK_INTERVAL_MS * 2 <= IDLE_GAP_MS_MAX  # noqa: S101
assert POLL_BLOCKED_MS_MAX < REVOKE_TIMEOUT_MS  # noqa: S101
assert QUERY_ROWS_DEFAULT <= QUERY_ROWS_MAX <= QUERY_SCAN_ROWS_MAX  # noqa: S101
assert GATEWAY_DELIVERY_MS_MAX < GATEWAY_GRACE_S * 1000  # noqa: S101
assert GATEWAY_SLICE_RECORDS_MAX <= GATEWAY_REQUEST_RECORDS_MAX <= GATEWAY_IN_FLIGHT_RECORDS_MAX  # noqa: S101
