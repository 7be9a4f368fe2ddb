"""`make audit`: findings, no findings, and advisories that cannot be had are three things with three statuses."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "audit.py"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit_of_locks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def report(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


CLEAN: dict[str, Any] = {"name": "one", "version": "1.0", "vulns": []}
BAD: dict[str, Any] = {
    "name": "two",
    "version": "2.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": ["CVE-1"], "description": ""}],
}
SKIPPED: dict[str, Any] = {"name": "three", "skip_reason": "not found on PyPI"}


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (report(CLEAN), 0),
        (report(CLEAN, BAD), 100),
        (report(CLEAN, SKIPPED), 1),
        (report(BAD, SKIPPED), 100),
        (report(), 1),
        ("", 1),
        ("not JSON", 1),
    ],
)
def test_the_exit_status_says_whether_anything_was_found_or_could_not_be_told(
    audit: ModuleType, found: str, status: int
) -> None:
    assert audit.verdict(found, "ERROR: cannot connect").status == status


def fake(directory: Path, lines: str) -> str:
    """A program in the place of pip-audit."""
    program = directory / "pip-audit"
    program.write_text(f"#!{sys.executable}\nimport sys\n{lines}")
    program.chmod(0o755)
    return str(program)


def test_advisories_that_cannot_be_reached_are_said_to_be_that(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = fake(tmp_path, "sys.exit('ERROR:pip_audit._cli:Could not connect to the vulnerability feed')")
    assert audit.main(program, ["some.lock"]) == 1
    said = capsys.readouterr().out
    assert "some.lock: NOT audited: no advisories were to be had" in said
    assert "Could not connect to the vulnerability feed" in said


def test_a_vulnerability_is_listed_with_what_mends_it(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write = (
        f"open(next(a for a in sys.argv if a.startswith('--output=')).partition('=')[2], 'w').write({report(BAD)!r})"
    )
    assert audit.main(fake(tmp_path, f"{write}\nsys.exit(1)"), ["one.lock", "two.lock"]) == 100
    assert "two 2.0: PYSEC-1, CVE-1; mended by 2.1" in capsys.readouterr().out
