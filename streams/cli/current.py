"""Which topics have the current outputs of flows, in lines."""

from collections.abc import Iterator, Mapping


def current_lines(current: Mapping[str, str]) -> Iterator[str]:
    """Lines about declared topics that are no longer written; `current`: by such a topic, its current one."""
    if current:
        yield ""
        yield "versions are current (streams backfill): read"
        for declared, now in current.items():
            yield f"  {now} for {declared}"
