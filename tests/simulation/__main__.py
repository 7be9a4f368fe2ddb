"""`make simulate SEED=n`: one seed, or many from it on."""

import argparse
import sys

from tests.simulation.run import simulate


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate crashes, rebalances and lost answers over a seeded log.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--events", type=int, default=400)
    options = parser.parse_args()
    for seed in range(options.seed, options.seed + options.runs):
        outcome = simulate(seed, events=options.events)
        clean = sum(map(len, outcome.clean.values()))
        sys.stdout.write(
            f"seed {seed}: clean {clean}, late {len(outcome.late)}, dead letters {len(outcome.dead)}, "
            f"rows {len(outcome.table)}, crashes {outcome.crashes}: as the model says\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
