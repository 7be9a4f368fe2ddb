"""Each right of each role taken away once, on a secured stack: what failed, and how it was said.

`python -m tests.rights` (`make rights-matrix`) writes the table of `docs/security.md`. `rights_ground.py` has the
topics and principals of a try, `rights_work.py` what each role does.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streams.acls.rights import Kind, Operation, Right
from streams.acls.roles import Role
from streams.local.stack import Stack, recorded_stack, running_stack
from tests.rights_ground import WORKED, Ground, Said, prepare
from tests.rights_work import WORKS


def without(ground: Ground, role: Role, right: Right | None) -> Said:
    """What the role says without one right; None: with all of them."""
    ground.give(role, [one for one in ground.rights(role) if one != right])
    return WORKS[role](ground)


def names(said: Said, right: Right) -> bool:
    """Whether words name what the right is on."""
    if right.kind is Kind.GROUP:
        return "group" in said.words and any(one in said.words for one in ("lacks", "uthorization failed"))
    kind = "transactional id" if right.kind is Kind.TRANSACTIONAL_ID else ""
    return kind in said.words and right.name in said.words


def operations(rights: Sequence[Right]) -> list[Right]:
    """One right of each kind and operation: the short form of a matrix."""
    seen: dict[tuple[Kind, Operation], Right] = {}
    for right in rights:
        seen.setdefault((right.kind, right.operation), right)
    return list(seen.values())


# --- the matrix -------------------------------------------------------------------------------------------------------

PAGE: Final = Path(__file__).parents[1] / "docs" / "security.md"
BEGIN: Final = "<!-- rights: begin (make rights-matrix) -->"
END: Final = "<!-- rights: end -->"
BEFORE: Final = "## What errors mean"
SECTION: Final = f"""### Each right taken away once

`make rights-matrix` does each role's work on a secured stack: with all of its rights, and once without each of them
(on the `gps` flow). It fails where the words do not name what the right is on. What was said:

{BEGIN}
{END}

"""
_WORDS_SHOWN: Final = 160
_CREATE: Final = (Role.CI, Role.STEWARD)
"""Roles that create topics: each try has a ground of its own."""


@dataclass(frozen=True)
class Row:
    """A role's work, once."""

    role: Role
    without: str
    """The right; empty: with all of them."""
    words: str
    is_right: bool
    """Whether it worked with all rights, or named the one that was missing."""

    def __str__(self) -> str:
        shown = self.words if len(self.words) <= _WORDS_SHOWN else f"{self.words[:_WORDS_SHOWN]}..."
        return f"| {self.role} | {self.without or 'all'} | {shown or 'works'} |"


def matrix(stack: Stack, directory: Path, roles: Sequence[Role], say: Callable[[Row], object]) -> list[Row]:
    """Each role's work with all of its rights, then without each of them; roles side by side, in their order."""
    with ThreadPoolExecutor(len(roles)) as threads:
        tried = [threads.submit(_rows_of, stack, directory, role, say) for role in roles]
        return [row for each in tried for row in each.result()]


def _rows_of(stack: Stack, directory: Path, role: Role, say: Callable[[Row], object]) -> list[Row]:
    rows: list[Row] = []
    shared = None if role in _CREATE else Ground(stack, directory).make()
    for right in (None, *(shared or Ground(stack, directory)).rights(role)):
        ground = shared or Ground(stack, directory)
        if role is Role.STEWARD:
            ground.make()
        mine = next((one for one in ground.rights(role) if right is not None and _same(one, right, ground)), None)
        said = without(ground, role, mine)
        words = said.words.replace(ground.prefix, "").replace("|", "/")
        is_right = said == WORKED if mine is None else names(said, mine)
        row = Row(role, "" if mine is None else _shown(mine, ground), words, is_right)
        say(row)
        rows.append(row)
    return rows


def _same(one: Right, other: Right, ground: Ground) -> bool:
    """Whether two rights are the same but for the prefix of their grounds."""
    return str(one).replace(ground.prefix, "") == re.sub(r"rights-[0-9a-f]{8}\.", "", str(other))


def _shown(right: Right, ground: Ground) -> str:
    return str(right).replace(ground.prefix, "")


def main() -> None:
    """Run the matrix on a stack of its own, or on one that runs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--role", action="append", default=[], choices=list(Role), help="repeatable; default: all")
    parser.add_argument("--dir", type=Path, help="of a secured stack that runs; default: one of its own")
    parser.add_argument("--page", action="store_true", help="put the table into docs/security.md")
    options = parser.parse_args()
    with ExitStack() as ends:
        scratch = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="rights-")))
        running = options.dir and recorded_stack(options.dir)
        stack = running or ends.enter_context(running_stack(scratch / "stack", secure=True))
        prepare(stack)
        rows = matrix(stack, scratch, [Role(one) for one in options.role] or list(Role), _say)
    if options.page:
        text = PAGE.read_text(encoding="utf-8")
        if BEGIN not in text:
            text = text.replace(BEFORE, SECTION + BEFORE, 1)
        before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        table = "\n".join(("| role | without | what is said |", "|---|---|---|", *map(str, rows)))
        PAGE.write_text(f"{before}\n{table}\n{after}", encoding="utf-8")
    if wrong := [row for row in rows if not row.is_right]:
        sys.exit("\n".join(("what is missing is not named:", *map(str, wrong))))


def _say(row: Row) -> None:
    print(f"{'ok ' if row.is_right else 'BAD'} {row}", flush=True)  # noqa: T201 - it runs for minutes


if __name__ == "__main__":
    main()
