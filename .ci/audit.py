"""Known vulnerabilities of everything in some locks: pip-audit, and an exit status that says what it found.

    python .ci/audit.py .local/audit/bin/pip-audit requirements/runtime.lock requirements/dev.lock

0: none is known. 100: some are, they are listed. 1: it cannot be told, since advisories cannot be reached or not for
every package; that is no finding and no pass either.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FOUND: Final = 100
UNKNOWN: Final = 1
TIMEOUT_S: Final = 900
LINES_SHOWN: Final = 5


@dataclass
class Verdict:
    """What is known of the packages of one lock."""

    audited: int = 0
    vulnerable: list[str] = field(default_factory=list)
    """Package, version, advisory and the versions that mend it, a line each."""
    unknown: list[str] = field(default_factory=list)
    """What could not be asked for, and why."""

    @property
    def status(self) -> int:
        """Exit status. A finding goes before what is not known."""
        if self.vulnerable:
            return FOUND
        return UNKNOWN if self.unknown or not self.audited else 0


def verdict(report: str, said: str) -> Verdict:
    """What a run of pip-audit has shown: its JSON report (empty: none was written) and its standard error."""
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = [line for line in said.splitlines() if line.strip()][-LINES_SHOWN:]
        return Verdict(unknown=lines or ["pip-audit wrote no report and said nothing"])
    found = Verdict()
    for package in packages:
        if (reason := package.get("skip_reason")) is not None:
            found.unknown.append(f"{package['name']}: {reason}")
            continue
        found.audited += 1
        for one in package.get("vulns", ()):
            mended = ", ".join(one.get("fix_versions", ())) or "no version"
            names = ", ".join((one["id"], *one.get("aliases", ())))
            found.vulnerable.append(f"{package['name']} {package['version']}: {names}; mended by {mended}")
    return found


def audited(pip_audit: str, lock: str) -> Verdict:
    """Run pip-audit over a lock."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        options = ["--disable-pip", "--require-hashes", "--progress-spinner=off", "--format=json", f"--output={report}"]
        ended = subprocess.run(
            [pip_audit, *options, "-r", lock], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        return verdict(report.read_text(encoding="utf-8") if report.exists() else "", ended.stderr)


def main(pip_audit: str, locks: list[str]) -> int:
    """Audit every lock and say what was found; returns the exit status."""
    found: list[Verdict] = []
    for lock in locks:
        one = audited(pip_audit, lock)
        found.append(one)
        print(f"{lock}: {one.audited} packages audited, {len(one.vulnerable)} known vulnerabilities")
        for line in one.vulnerable:
            print(f"  {line}")
        if one.unknown:
            print(f"{lock}: NOT audited: no advisories were to be had; this says nothing about vulnerabilities")
            for line in one.unknown[:LINES_SHOWN]:
                print(f"  {line}")
            if len(one.unknown) > LINES_SHOWN:
                print(f"  and {len(one.unknown) - LINES_SHOWN} more")
    statuses = {one.status for one in found}
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
