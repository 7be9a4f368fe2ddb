"""`make grow-ordeal`: a topic grows from 3 to 12 partitions in six courses; what was lost, how long keys paused.

make grow-ordeal ARGS='--only kills --seed 7'
make grow-ordeal ARGS='--only scale'            # 3 workers and 3 partitions become 12 and 12
"""

import argparse
import sys
import tempfile
from pathlib import Path

from streams.local.stack import running_stack
from tests.growing.courses import COURSES, lines, run
from tests.integration.kafka_helpers import QUICK_START


def main() -> int:
    parser = argparse.ArgumentParser(description="Grow a topic in six courses, and count what came of it.")
    parser.add_argument("--only", action="append", choices=sorted(COURSES), help="this course; may be repeated")
    parser.add_argument("--rate", type=int, default=1_000, help="events a second")
    parser.add_argument("--devices", type=int, default=400, help="vehicles that send them")
    parser.add_argument("--seed", type=int, default=19, help="of the kills")
    parser.add_argument("--group-protocol", choices=("classic", "consumer"), default="classic", help="of the workers")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="growing-") as name:
        directory = Path(name)
        with running_stack(directory / "stack", extension=QUICK_START) as stack:
            for course in options.only or COURSES:
                result = run(
                    stack,
                    directory,
                    course,
                    records_per_s=options.rate,
                    devices=options.devices,
                    seed=options.seed,
                    group_protocol=options.group_protocol,
                )
                print(f"{course}: {result.count}", file=sys.stderr)
                results.append(result)
    print("\n".join(lines(results)))
    return 0 if all(one.count.ok for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
