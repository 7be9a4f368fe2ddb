"""`make simulate-grow SEED=n`: one seed of growing a topic, or many from it on."""

import argparse
import sys

from tests.simulation.growth.mutants import MUTANTS, mutated
from tests.simulation.growth.run import STEPS, simulate_growth


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Simulate the growth of a topic while producers change and workers die."
    )
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--mutant", choices=MUTANTS, help="with this rule broken: the first seed that finds it")
    options = parser.parse_args()
    for seed in range(options.seed, options.seed + options.runs):
        if options.mutant:
            try:
                with mutated(options.mutant):
                    simulate_growth(seed, steps=options.steps)
            except Exception as error:  # noqa: BLE001 - whatever it fails of, it is found
                sys.stdout.write(f"seed {seed}: {type(error).__name__}: {error}\n")
                return 0
            continue
        grown = simulate_growth(seed, steps=options.steps)
        sizes = " -> ".join(map(str, grown.partitions))
        sys.stdout.write(
            f"seed {seed}: {sizes} partitions, sent {grown.sent}, forwarded {grown.forwarded}, late {grown.late}, "
            f"kills {grown.kills}: as one stream per key\n"
        )
    return 1 if options.mutant else 0


if __name__ == "__main__":
    sys.exit(main())
