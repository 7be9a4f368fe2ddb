"""`make simulate-grow SEED=n`: seeds of a flow that grows under the core of the worker."""

import argparse
import logging
import sys

import structlog

from tests.simulation.grown.run import STEPS, simulate_grown


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate workers whose flow grows while producers change.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for seed in range(options.seed, options.seed + options.runs):
        grown = simulate_grown(seed, steps=options.steps)
        sizes = " -> ".join(map(str, grown.partitions))
        sys.stdout.write(
            f"seed {seed}: {sizes} partitions, sent {grown.sent}, forwarded {grown.forwarded}, late {grown.late}, "
            f"crashes {grown.crashes}: as one stream per key\n"
        )
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
