"""How findings of the schema gate are printed: for people, for programs, and as annotations of GitHub's checks."""

import os
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from streams.cli.output import echo_line
from streams.errors import FoundSomething, StreamsError
from streams.schemas.gate.findings import Finding, Rule, shown, versions_in_words
from streams.text import counted


class FindingsFormat(StrEnum):
    """How findings are printed."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


FindingsOption = Annotated[
    FindingsFormat,
    typer.Option(
        "--format",
        help="How to print the result; github: as annotations (text adds them by itself in a GitHub action).",
    ),
]


def echo_findings(findings: Sequence[Finding], output: FindingsFormat) -> None:
    """Print findings as text or as annotations."""
    if output is FindingsFormat.TEXT:
        for finding in findings:
            _echo_text(finding)
    if output is FindingsFormat.GITHUB or os.environ.get("GITHUB_ACTIONS") == "true":
        for finding in findings:
            echo_line(annotation(finding))


def annotation(finding: Finding) -> str:
    """A finding as a workflow command, which GitHub shows at the line of the file."""
    parts = [_place(finding) + finding.message]
    parts += [f"Breaks: {finding.breaks}"] if finding.breaks else []
    parts += [f"Instead: {finding.fix}"] if finding.fix else []
    title = f"{finding.subject} version {finding.version}: {finding.rule}"
    properties = {"file": shown(finding.file), "line": str(finding.line), "title": title}
    given = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items() if value)
    message = _escaped("\n".join(parts), "")
    return f"::error {given}::{message}"


def fail_on_findings(findings: Sequence[Finding], what: str) -> None:
    """End as the findings ask for.

    Raises:
        StreamsError: gate and registry disagree.
        FoundSomething: there is any other finding.

    """
    disputed = [f for f in findings if f.rule is Rule.DISAGREEMENT]
    if disputed:
        names = ", ".join(dict.fromkeys(f"{f.subject} version {f.version}" for f in disputed))
        raise StreamsError(f"the gate and the registry disagree about {names}: register nothing before that is settled")
    if findings:
        names = ", ".join(dict.fromkeys(f"{f.subject} version {f.version}" for f in findings))
        raise FoundSomething(f"{what}: {counted(len(findings), 'finding')} in {names}")


def _echo_text(finding: Finding) -> None:

    place = shown(finding.file) or finding.subject
    against = f", against {versions_in_words(finding.against)}" if finding.against else ""
    echo_line(f"{place}:{finding.line}: {_place(finding)}{finding.message} [{finding.rule}]")
    echo_line(f"    {finding.subject} version {finding.version}{against}")
    if finding.breaks:
        echo_line(f"    breaks   {finding.breaks}")
    if finding.fix:
        echo_line(f"    instead  {finding.fix}")


def _place(finding: Finding) -> str:
    return f"{finding.field}: " if finding.field else ""


def _escaped(value: str | None, also: str) -> str:
    text = (value or "").replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    for character in also:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
