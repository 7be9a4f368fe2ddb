"""`make faults`: all fault tests, then the table of what they found. `--row 7`: one row; the rest goes to pytest."""

import argparse
import sys

import pytest

from tests.faults.results import Summary


def main() -> int:
    parser = argparse.ArgumentParser(description="Inject faults into a real Kafka, registry, disk and workers.")
    parser.add_argument(
        "--row", type=int, action="append", default=[], help="only this row (repeatable); the table keeps the others"
    )
    parser.add_argument("--page", action="store_true", help="put the table into docs/faults.md")
    options, further = parser.parse_known_args()
    summary = Summary()
    chosen = ["-m", " or ".join(f"fault(row={row})" for row in options.row)] if options.row else ["-m", "fault"]
    status = pytest.main(["tests/faults", "--timeout=900", *chosen, *further], plugins=[summary])
    if options.row:
        summary.add_earlier()
    folder = summary.write()
    sys.stdout.write(f"\n{summary.text()}\n\nthe largest of several times to recover is shown; all of it in {folder}\n")
    if options.page:
        summary.write_page()
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
