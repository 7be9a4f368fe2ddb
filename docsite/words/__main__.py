"""`python -m docsite.words`: a line for each finding in pages and docstrings; exit status 1 if there is one."""

import sys
from pathlib import Path
from typing import Final

from docsite.words.findings import by_proselint, by_vocabulary
from docsite.words.prose import of_module, of_page

ROOT: Final = Path(__file__).parents[2]
_ROOT_PAGES: Final = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
_WRITTEN_BY_A_PROGRAM: Final = "docs/lag-verdicts.md"
"""Its sentences are those of the monitor (`python -m tests.lag_histories`)."""
_PACKAGES: Final = ("streams", "logistics", "docsite")


def main() -> int:
    """Look at everything; the vocabulary for pages and docstrings, proselint for pages."""
    pages = {*(ROOT / name for name in _ROOT_PAGES), *(ROOT / "docs").rglob("*.md")} - {ROOT / _WRITTEN_BY_A_PROGRAM}
    modules = [module for package in _PACKAGES for module in (ROOT / package).rglob("*.py")]
    count = 0
    for passage in (each for page in sorted(pages) for each in of_page(page)):
        for finding in (*by_vocabulary(passage), *by_proselint(passage)):
            count += 1
            sys.stdout.write(f"{finding}\n")
    for passage in (each for module in sorted(modules) for each in of_module(module)):
        for finding in by_vocabulary(passage):
            count += 1
            sys.stdout.write(f"{finding}\n")
    sys.stdout.write(f"{count} words to change in {len(pages)} pages and {len(modules)} modules\n")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
