"""`streams schemas lint`, `check` and `lock`: verdicts on the committed schemas."""

from typing import Annotated, Any

import typer

from streams.cli.findings import FindingsFormat, FindingsOption, echo_findings, fail_on_findings
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.cli.schemas.results import SubjectsArgument
from streams.flow.discover import select_pipelines
from streams.schemas.client import Registry
from streams.schemas.gate.findings import versions_in_words
from streams.schemas.gate.modes import Mode
from streams.schemas.gate.run import CheckResult, check_catalog, lint_catalog, lock_catalog
from streams.schemas.gate.verdict import Verdict
from streams.settings import load_settings
from streams.text import counted


def lint_command(subjects: SubjectsArgument = None, output: FindingsOption = FindingsFormat.TEXT) -> None:
    """Lint schemas: naming, units, docs, defaults, logical types, missing fields.

    Exit status 100 when something is found. `schemas/subjects.toml` exempts a field from a rule.
    """
    result = lint_catalog(subjects or (), select_pipelines(None))
    if output is FindingsFormat.JSON:
        echo_json({"subjects": result.subjects, "findings": [finding.as_json() for finding in result.findings]})
    else:
        echo_findings(result.findings, output)
        if not result.findings and output is FindingsFormat.TEXT:
            looked_at = f"{counted(len(result.subjects), 'subject')}, {counted(result.versions, 'version')}"
            echo_line(f"{looked_at}: nothing found")
    fail_on_findings(result.findings, "lint")


def check_command(
    subjects: SubjectsArgument = None,
    *,
    registry: Annotated[
        bool | None,
        typer.Option(
            "--registry/--offline", help="Require the registry, or do not ask it. Default: ask it if it answers."
        ),
    ] = None,
    locked: Annotated[
        bool,
        typer.Option(
            "--locked",
            help="For CI: a version that is not in schemas/versions.lock is a finding; a registry that answers with "
            "an error fails the check. One that cannot be reached does not; --registry insists on it.",
        ),
    ] = False,
    mode: Annotated[
        str | None, typer.Option(help="Judge by this compatibility mode instead of the subject's own, as a trial.")
    ] = None,
    output: FindingsOption = FindingsFormat.TEXT,
) -> None:
    """Check whether the committed schemas break a consumer or a stored event, and how to change them compatibly.

    Every version that is not locked yet, and the newest one, is compared with the versions before it, by the subject's
    mode (BACKWARD_TRANSITIVE unless schemas/subjects.toml says otherwise). If the registry answers, it is asked too:
    its versions must equal the files, and its verdict must be the same.

    Exit status 100 when there are findings, 1 when gate and registry disagree, or when a required registry (--registry,
    --locked) answers with an error.
    """
    result = check_catalog(
        subjects or (),
        select_pipelines(None),
        None if registry is False else Registry(load_settings()),
        mode=_mode(mode),
        insist=registry is True,
        locked=locked,
    )
    if output is FindingsFormat.JSON:
        asked = result.registry
        echo_json(
            {
                "compatible": not result.findings,
                "registry": {"url": asked.url, "asked": asked.why_not is None, "why_not": asked.why_not},
                "subjects": [_verdict_row(verdict) for verdict in result.verdicts],
                "findings": [finding.as_json() for finding in result.findings],
            }
        )
    else:
        echo_findings(result.findings, output)
        if output is FindingsFormat.TEXT:
            _echo_verdicts(result)
    fail_on_findings(result.findings, "check")


def lock_command(output: FormatOption = Format.TEXT) -> None:
    """Add new versions to schemas/versions.lock: from then on, an edit of their files is refused.

    Existing lines are never changed. It refuses what `check --offline` refuses.
    """
    result = lock_catalog(select_pipelines(None))
    if result.findings:
        echo_findings(result.findings, FindingsFormat.TEXT)
        fail_on_findings(result.findings, "nothing was locked")
    if output is Format.JSON:
        echo_json([{"subject": each.subject, "version": each.version} for each in result.added])
        return
    for version in result.added:
        echo_line(f"{version.subject} version {version.version} is locked")
    if not result.added:
        echo_line("every version is locked already")


def _verdict_row(verdict: Verdict) -> dict[str, Any]:
    state = verdict.registry
    return {
        "subject": verdict.subject,
        "compatibility": verdict.mode.value,
        "versions": list(verdict.versions),
        "unlocked": list(verdict.unlocked),
        "compatible": not verdict.findings,
        "registry": None
        if state is None
        else {
            "compatibility": state.mode.value if state.mode else None,
            "versions": [{"version": each.version, "id": each.schema_id} for each in state.versions],
            "agreed": list(verdict.agreed),
            "not_committed": [{"version": each.version, "id": each.schema_id} for each in verdict.not_committed],
        },
    }


def _echo_verdicts(result: CheckResult) -> None:
    if result.findings:
        echo_line()
    width = max((len(each.subject) for each in result.verdicts), default=0)
    for each in result.verdicts:
        word = counted(len(each.findings), "finding") if each.findings else "compatible"
        notes = []
        if each.agreed:
            notes.append(f"the registry says the same of {versions_in_words(each.agreed)}")
        elif each.registry is not None and not each.registry.versions:
            notes.append("not in the registry yet: nothing to compare with")
        if each.not_committed:
            notes.append(f"in no file, but registered: {versions_in_words(v.version for v in each.not_committed)}")
        if each.unlocked:
            notes.append(f"not locked yet: {versions_in_words(each.unlocked)}")
        note = f"  ({'; '.join(notes)})" if notes else ""
        echo_line(f"{each.subject:<{width}}  {each.mode:<20}  {counted(len(each.versions), 'version')}  {word}{note}")
    echo_line(result.registry.in_words)


def _mode(name: str | None) -> Mode | None:
    if name is None:
        return None
    if name.upper() not in set(Mode):
        raise typer.BadParameter(f"no mode {name!r}: there is {', '.join(Mode)}")
    return Mode(name.upper())
