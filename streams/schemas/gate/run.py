"""The gate over a whole catalog, as the command line and continuous integration run it: lint, check, lock.

Each function returns a result and prints nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from streams.flow.declaration import Pipeline
from streams.schemas.catalog import Catalog, SchemaVersion
from streams.schemas.client import Registry, RegistryUnavailable
from streams.schemas.gate.agreement import with_registry
from streams.schemas.gate.check import check_subject, not_locked
from streams.schemas.gate.findings import Finding
from streams.schemas.gate.lint import lint
from streams.schemas.gate.modes import Mode
from streams.schemas.gate.verdict import Verdict
from streams.schemas.lock import read_lock, removed_subjects, write_lock


@dataclass(frozen=True, slots=True)
class LintResult:
    """Findings in `versions` schema versions of `subjects`."""

    subjects: tuple[str, ...]
    versions: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class RegistryAsked:
    """Whether a registry was asked, which one, or why not."""

    url: str
    why_not: str | None = None

    @property
    def in_words(self) -> str:
        """Return the registry's answer as one line of text."""
        return f"{self.url}: {self.why_not}" if self.why_not else f"{self.url}: asked"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Verdicts on the subjects whose files can be read, all findings, and whether a registry was asked."""

    verdicts: tuple[Verdict, ...]
    findings: tuple[Finding, ...]
    registry: RegistryAsked


@dataclass(frozen=True, slots=True)
class LockResult:
    """Versions that were added to the lock file; nothing is added where there are findings."""

    added: tuple[SchemaVersion, ...]
    findings: tuple[Finding, ...]


OFFLINE: Final = RegistryAsked("registry", "not asked (--offline)")


def lint_catalog(subjects: Sequence[str], flows: Sequence[Pipeline]) -> LintResult:
    """Lint each version of `subjects` (none: of all subjects), files that cannot be read included.

    Raises:
        UsageError: there is no such subject.

    """
    catalog, broken = Catalog.read()
    chosen = _chosen(catalog, broken, subjects)
    versions = [each for subject in _readable(catalog, chosen) for each in catalog.versions(subject)]
    findings = [finding for finding in broken if finding.subject in chosen]
    for version in versions:
        findings += lint(version, flows, catalog.settings(version.subject))
    return LintResult(tuple(chosen), len(versions), tuple(findings))


def check_catalog(
    subjects: Sequence[str],
    flows: Sequence[Pipeline],
    registry: Registry | None,
    *,
    mode: Mode | None = None,
    insist: bool = False,
    locked: bool = False,
) -> CheckResult:
    """The verdict on `subjects` (none: on all subjects) by the files, and by a registry, if there is one that answers.

    `mode` replaces the subjects' own. `insist`: the registry must answer. `locked`: a version that is not in the lock
    file is a finding, and a registry that answers with an error, such as 401, is not passed over.

    Raises:
        UsageError: there is no such subject.
        RegistryUnavailable: no usable answer, and `insist` or `locked` ask for one.

    """
    catalog, broken = Catalog.read()
    chosen = _chosen(catalog, broken, subjects)
    lock = read_lock(catalog.root)
    verdicts = [check_subject(catalog, each, lock, flows, mode=mode) for each in _readable(catalog, chosen)]
    asked = OFFLINE
    if registry is not None:
        verdicts, asked = _ask(registry, catalog, verdicts, insist=insist, heed_errors=locked)
    findings = [finding for finding in broken if finding.subject in chosen]
    findings += [finding for verdict in verdicts for finding in verdict.findings]
    findings += [] if subjects else removed_subjects(catalog, lock, chosen)
    if locked:
        findings += [finding for verdict in verdicts for finding in not_locked(catalog, verdict)]
    return CheckResult(tuple(verdicts), tuple(findings), asked)


def lock_catalog(flows: Sequence[Pipeline]) -> LockResult:
    """Add every version that is missing in the lock file, unless the check of the files has findings."""
    catalog = Catalog.load()
    lock = read_lock(catalog.root)
    findings = [f for each in catalog.subjects() for f in check_subject(catalog, each, lock, flows).findings]
    return LockResult((), tuple(findings)) if findings else LockResult(tuple(write_lock(catalog, lock)), ())


def _chosen(catalog: Catalog, broken: Sequence[Finding], subjects: Sequence[str]) -> list[str]:
    """The requested subjects; all if none were requested."""
    if not subjects:
        return sorted({*catalog.subjects(), *(finding.subject for finding in broken)})
    for subject in subjects:
        if not any(finding.subject == subject for finding in broken):
            catalog.versions(subject)
    return list(dict.fromkeys(subjects))


def _readable(catalog: Catalog, chosen: Sequence[str]) -> list[str]:
    known = set(catalog.subjects())
    return [subject for subject in chosen if subject in known]


def _ask(
    registry: Registry, catalog: Catalog, verdicts: list[Verdict], *, insist: bool, heed_errors: bool
) -> tuple[list[Verdict], RegistryAsked]:
    """The verdicts with the registry's part; or unchanged, with the reason why it adds nothing."""
    if not verdicts:
        return verdicts, RegistryAsked(registry.url_shown, "not asked, no subject can be judged")
    try:
        return [with_registry(catalog, registry, verdict) for verdict in verdicts], RegistryAsked(registry.url_shown)
    except RegistryUnavailable as error:
        if insist or (heed_errors and error.answered):
            raise
        reason = error.reason or "no usable answer"
        silence = "it answers with an error" if error.answered else "it does not answer"
        why_not = f"not asked, {silence} ({reason}): judged by the files alone"
        return verdicts, RegistryAsked(registry.url_shown, why_not)
