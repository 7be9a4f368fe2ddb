"""The commands of `streams`: name, where each is, and its description in lists.

A description is the first paragraph of the command's docstring, written twice so that lists need no import; a test
compares the two.
"""

from typing import Final

from streams.cli.lazy import LazyCommand, LazyCommands, Table

COMMANDS: Final[Table] = {
    "new": LazyCommand(
        "new:new",
        "Create a repository for flows of your own: a flow, schemas, a test without a broker, what builds and ships "
        "them.",
    ),
    "flows": LazyCommands(
        "Declared flows: list them, show one as a topology.",
        {
            "list": LazyCommand(
                "flows:list_command",
                "List the flows of the app: name, source, outputs, and the module that declares each.",
            ),
            "show": LazyCommand(
                "flows:show_command",
                "Show a flow as a topology: its steps in the order in which events pass them, its topics, the bounds "
                "in force.",
            ),
        },
    ),
    "worker": LazyCommand(
        "worker:worker",
        "Run a stream worker until SIGTERM or Ctrl-C; start more of them to share the work.",
    ),
    "query": LazyCommand(
        "query:query",
        "Query a table: the row of a key, or rows of a range, as committed; --watch follows it.",
    ),
    "backfill": LazyCommand(
        "backfill:backfill",
        "Run the history of a flow's source through the flow again, into a version of its outputs.",
    ),
    "sink": LazyCommand(
        "sink:sink",
        "Copy a topic of a flow into a database, a Delta table or an endpoint until SIGTERM or Ctrl-C.",
    ),
    "delta": LazyCommands(
        "Delta tables of sinks: maintenance.",
        {
            "compact": LazyCommand(
                "delta:compact_command",
                "Merge the small files of a sink's Delta table; the sink may write meanwhile.",
            ),
            "vacuum": LazyCommand(
                "delta:vacuum_command",
                "Remove files of a sink's Delta table that no version of the last hours needs.",
            ),
        },
    ),
    "lag": LazyCommand(
        "lag:lag",
        "Verdict on every consumer group and partition: its lag, since when, why, and what to do.",
    ),
    "monitor": LazyCommand(
        "monitor:monitor",
        "Watch lag, freshness and workers; a live page, Prometheus metrics, and Burrow's API. Until SIGTERM or Ctrl-C.",
    ),
    "plan": LazyCommand(
        "plan:plan",
        "Plan partitions, workers, cores, disk and cost for a number of devices; say what is measured and what is not.",
    ),
    "demo": LazyCommand(
        "demo:demo",
        "Start Kafka, the registry, a worker, the monitor and the gateway, feed them, and watch, until q or Ctrl-C.",
    ),
    "settings": LazyCommand(
        "settings:settings_command",
        "Print every setting in force (environment and defaults), secrets masked; name variables that are no settings.",
    ),
    "local": LazyCommands(
        "A real Kafka and schema registry on this machine, without Docker.",
        {
            "up": LazyCommand(
                "local:up_command",
                "Start Kafka and the schema registry; return when both answer.",
            ),
            "down": LazyCommand(
                "local:down_command",
                "Stop Kafka and the schema registry. Their data stays: remove the directory to start from nothing.",
            ),
            "status": LazyCommand(
                "local:status_command",
                "Report whether Kafka and the registry run and answer; exit status 100 unless both do.",
            ),
        },
    ),
    "topics": LazyCommands(
        "Declared topics: create, compare, grow.",
        {
            "apply": LazyCommand(
                "topics:apply_command",
                "Create the declared topics that are missing and register the committed schemas.",
            ),
            "grow": LazyCommand(
                "grow:grow_command",
                "Give the topics of a flow more partitions while it runs: state and order of each key are kept.",
            ),
            "list": LazyCommand(
                "topics:list_command",
                "Show the declared topics: present, missing, or different from their declaration (exit status 100).",
            ),
        },
    ),
    "acls": LazyCommands(
        "The least rights of each role in a Kafka cluster.",
        {
            "show": LazyCommand(
                "acls:show_command",
                "Print the least rights that each role needs for the declared flows, and what each is for. Asks no "
                "cluster.",
            ),
            "apply": LazyCommand(
                "acls:apply_command",
                "Grant what the principal of a role lacks. Takes nothing away; safe to repeat.",
            ),
            "audit": LazyCommand(
                "acls:audit_command",
                "Compare the rights of principals with the least ones: what they lack, and what is granted beyond.",
            ),
        },
    ),
    "schemas": LazyCommands(
        "The schema gate: committed schemas, what a change breaks, and the registry.",
        {
            "lint": LazyCommand(
                "schemas.gate:lint_command",
                "Lint schemas: naming, units, docs, defaults, logical types, missing fields.",
            ),
            "check": LazyCommand(
                "schemas.gate:check_command",
                "Check whether the committed schemas break a consumer or a "
                "stored event, and how to change them compatibly.",
            ),
            "register": LazyCommand(
                "schemas.registry:register_command",
                "Check, register all versions in order under the subject's mode, read them back, and print their ids.",
            ),
            "unregister": LazyCommand(
                "schemas.registry:unregister_command",
                "Take a draft back: delete a registered version that is not locked and that no record uses.",
            ),
            "list": LazyCommand(
                "schemas.registry:list_command",
                "Show every subject: versions, ids, compatibility mode, who uses it, and drift between files and "
                "registry.",
            ),
            "diff": LazyCommand(
                "schemas.versions:diff_command",
                "Show what differs between two versions of a subject, field by field, and between its files and the "
                "registry.",
            ),
            "lock": LazyCommand(
                "schemas.gate:lock_command",
                "Add new versions to schemas/versions.lock: from then on, an edit of their files is refused.",
            ),
            "new-version": LazyCommand(
                "schemas.versions:new_version_command",
                "Scaffold the next version of a topic: schemas, and a flow that runs beside the old one while "
                "producers move.",
            ),
        },
    ),
    "ingest": LazyCommands(
        "Files into topics.",
        {
            "file": LazyCommand(
                "ingest:file_command",
                "Send the rows of files to a topic: each valid row exactly once.",
            ),
        },
    ),
    "gateway": LazyCommands(
        "Accept events over HTTP into the source topics of the declared flows, until SIGTERM or Ctrl-C.",
        {
            "token": LazyCommands(
                "Tokens of senders, and secrets of their webhooks: new, list, revoke.",
                {
                    "new": LazyCommand(
                        "gateway:new_command",
                        "Make a token, or a webhook's secret, and print it: it is not shown again.",
                    ),
                    "list": LazyCommand(
                        "gateway:list_command",
                        "List tokens and webhook secrets: id, name, sources, until when. Never the secret.",
                    ),
                    "revoke": LazyCommand(
                        "gateway:revoke_command",
                        "Revoke a token or a webhook's secret, now or later; gateways know within a second.",
                    ),
                },
            ),
        },
        own=LazyCommand(
            "gateway:run_command",
            "Accept events over HTTP into the source topics of the declared flows, until SIGTERM or Ctrl-C.",
        ),
    ),
    "pull": LazyCommand(
        "pull:pull",
        "Poll a REST source into the source topic of a flow, until SIGTERM or Ctrl-C.",
    ),
    "bridge": LazyCommands(
        "Events of other message brokers.",
        {
            "mqtt": LazyCommand(
                "bridge:mqtt_command",
                "Take MQTT messages into a source topic, until SIGTERM or Ctrl-C.",
            ),
        },
    ),
    "dlq": LazyCommands(
        "Dead letters: review, fix, replay, discard.",
        {
            "list": LazyCommand(
                "dlq.list:list_command",
                "Count dead letters, then show the newest of them.",
            ),
            "show": LazyCommand(
                "dlq.show:show_command",
                "Show everything about one dead letter: why, its bytes, its fields, its schema, its earlier attempts.",
            ),
            "replay": LazyCommand(
                "dlq.replay:replay_command",
                "Send open dead letters back to the topics that they came from, each exactly once.",
            ),
            "discard": LazyCommand(
                "dlq.discard:discard_command",
                "Discard open dead letters: record that nothing more has to be done about them, and why.",
            ),
        },
    ),
    "reconcile": LazyCommand(
        "reconcile:reconcile_command",
        "Compare what a flow has written with what it should have written, by a model without code of the workers.",
    ),
    "forget": LazyCommand(
        "forget:forget",
        "Forget a key: delete its rows in tables and windows, the workers' state of it, and its dead letters.",
    ),
    "state": LazyCommands(
        "State of workers: inspect it, rebuild it.",
        {
            "inspect": LazyCommand(
                "state:inspect_command",
                "Show the local state of each partition, what it belongs to, and whether it fits what Kafka has.",
            ),
            "rebuild": LazyCommand(
                "state:rebuild_command",
                "Rebuild the state of a flow when a worker refuses to start with it. Stop all its workers first.",
            ),
        },
    ),
    "snapshot": LazyCommands(
        "Snapshots of state in an object store: take, list, verify, restore.",
        {
            "create": LazyCommand(
                "snapshot:create_command",
                "Upload a snapshot of each partition in the data directory of a stopped worker.",
            ),
            "list": LazyCommand(
                "snapshot:list_command",
                "List snapshots, the newest of each partition first, and whether a restore would use them.",
            ),
            "verify": LazyCommand(
                "snapshot:verify_command",
                "Read every byte of every snapshot and compare it with its checksum.",
            ),
            "restore": LazyCommand(
                "snapshot:restore_command",
                "Put the newest usable snapshots into a data directory, for a worker that is started there.",
            ),
        },
    ),
}
