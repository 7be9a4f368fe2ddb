"""`python -m docsite.drawings`: write the figures of the concepts."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from docsite.drawings import logs, times
from docsite.drawings.canvas import Canvas

FOLDER: Final = Path(__file__).parents[2] / "docs" / "images" / "figures"
FIGURES: Final[Mapping[str, Callable[[], Canvas]]] = {
    "log-and-partitions": logs.log_and_partitions,
    "watermark": times.watermark,
    "commit-cycle": logs.commit_cycle,
    "dedup-horizon": times.dedup_horizon,
    "dead-letter": times.dead_letter,
    "growth": logs.growth,
    "joins": times.joins,
}


def main() -> None:
    """Write every figure."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
