"""Which topics have the outputs of flows now, in lines."""

from collections.abc import Iterator, Mapping


def current_lines(current: Mapping[str, str]) -> Iterator[str]:
    """Lines about the declared topics that stand still; `current`: by such a topic, the one that has its records."""
    if current:
        yield ""
        yield "versions are current (streams backfill): read"
        for declared, now in current.items():
            yield f"  {now} for {declared}"
