"""`make simulate-grow SEED=n`: seeds of a flow that grows under the core of the worker."""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import structlog

from tests.merged import schemas_of
from tests.simulation.grown.pairs import simulate_pair
from tests.simulation.grown.run import STEPS, simulate_grown


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate workers whose flow grows while producers change.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as directory:
        schemas = schemas_of(Path(directory))
        for seed in range(options.seed, options.seed + options.runs):
            for what, grown in (
                ("one input", simulate_grown(seed, steps=options.steps)),
                ("two inputs, joined", simulate_pair(seed, schemas, steps=options.steps)),
            ):
                sizes = " -> ".join(map(str, grown.partitions))
                sys.stdout.write(
                    f"seed {seed}, {what}: {sizes} partitions, sent {grown.sent}, forwarded {grown.forwarded}, late "
                    f"{grown.late}, crashes {grown.crashes}: as one stream per key\n"
                )
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
