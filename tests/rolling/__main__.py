"""`make rolling-upgrade`: four workers upgraded one after the other under load; what was lost, and the longest pause.

make rolling-upgrade ARGS='--before v0.1.0 --rate 4000'   # from the code of that revision to these files
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from streams.local.stack import running_stack
from tests.integration.kafka_helpers import QUICK_START
from tests.rolling.upgrade import lines, upgraded

SEED: Final = 22


def main() -> int:
    parser = argparse.ArgumentParser(description="Upgrade four workers one after the other under load.")
    parser.add_argument("--before", default="", help="revision that the workers run first; these files by default")
    parser.add_argument("--rate", type=int, default=2_000, help="events a second")
    parser.add_argument("--between", type=float, default=5.0, help="seconds between a ready worker and the next step")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rolling-") as name:
        directory = Path(name)
        with running_stack(directory / "stack", extension=QUICK_START) as stack:
            result = upgraded(
                stack, directory, before=options.before, records_per_s=options.rate, between_s=options.between,
                seed=options.seed,
            )  # fmt: skip
    print("\n".join(lines(result)))
    return 0 if result.report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
