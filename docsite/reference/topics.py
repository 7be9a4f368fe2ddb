"""The reference of topics: those of the flows that come with the product, from their declarations."""

from docsite.reference.tables import code, table
from streams.flow.discover import declared_flows
from streams.flow.topology import beside

APP = "logistics"


def page() -> str:
    """The page as Markdown."""
    lines = [
        "# Topics and groups",
        "",
        "What the flows that come with the product read and write, as their declarations say. `streams topics list`",
        "compares a cluster with this; `streams flows show NAME` shows one flow of any app. All topics begin with",
        "`STREAMS_TOPIC_PREFIX`. The key decides the partition (murmur2), and everything is read `read_committed`.",
        "",
    ]
    for declared in declared_flows(APP):
        pipeline = declared.flow.pipeline
        what = dict(beside(pipeline))
        rows = [
            (
                code(topic.name),
                topic.cleanup.value,
                _retention(topic.config()),
                code(topic.subject or ""),
                what.get(topic.name, ""),
            )
            for topic in pipeline.topics()
        ]
        lines += [
            f"## Flow {declared.flow.name}",
            "",
            f"Declared in `{declared.module}`; consumer group `{pipeline.group}`.",
            "",
            *table(("topic", "cleanup", "retention", "schema subject", "holds"), rows),
        ]
    return "\n".join(lines)


def _retention(config: dict[str, str]) -> str:
    milliseconds = int(config.get("retention.ms", -1))
    return f"{milliseconds // 86_400_000} days" if milliseconds > 0 else "unlimited"
