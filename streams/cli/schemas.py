"""`streams schemas`: the committed schemas and the registry, and the gate between them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from streams.cli.findings import FindingsFormat, FindingsOption, echo_findings, fail_on_findings
from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.errors import FoundSomething, StreamsError
from streams.text import counted

if TYPE_CHECKING:
    from streams.schemas.catalog import Catalog
    from streams.schemas.gate.changes import Difference
    from streams.schemas.gate.findings import Finding
    from streams.schemas.gate.verdict import Verdict
    from streams.schemas.registration import Listing, Registration
    from streams.schemas.unregistration import Draft, Use
    from streams.settings import Settings

schemas_app = typer.Typer(
    help="The schema gate: committed schemas, what a change breaks, and the registry.", no_args_is_help=True
)

SubjectsArgument = Annotated[list[str] | None, typer.Argument(metavar="SUBJECT", help="Subjects; default: all.")]


@schemas_app.command("lint")
def lint_command(subjects: SubjectsArgument = None, output: FindingsOption = FindingsFormat.TEXT) -> None:
    """Look for what a single schema will be regretted for: names, units, docs, defaults, logical types, missing fields.

    Exit status 100 when something is found. `schemas/subjects.toml` exempts a field from a rule.
    """
    from streams.flow.discover import select_pipelines  # noqa: PLC0415 - start-up time of the command line
    from streams.schemas.catalog import Catalog  # noqa: PLC0415 - as above
    from streams.schemas.gate.lint import lint  # noqa: PLC0415 - as above

    catalog, broken = Catalog.read()
    chosen = _chosen(catalog, broken, subjects)
    pipelines = select_pipelines(None)
    findings = [f for f in broken if f.subject in chosen]
    versions = [each for subject in _healthy(catalog, chosen) for each in catalog.versions(subject)]
    for version in versions:
        findings += lint(version, pipelines, catalog.settings(version.subject))
    if output is FindingsFormat.JSON:
        echo_json({"subjects": chosen, "findings": [finding.as_json() for finding in findings]})
    else:
        echo_findings(findings, output)
        if not findings and output is FindingsFormat.TEXT:
            echo_line(f"{counted(len(chosen), 'subject')}, {counted(len(versions), 'version')}: nothing found")
    fail_on_findings(findings, "lint")


@schemas_app.command("check")
def check_command(
    subjects: SubjectsArgument = None,
    *,
    registry: Annotated[
        bool | None,
        typer.Option(
            "--registry/--offline", help="Insist on the registry, or do not ask it. Default: ask it if it answers."
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
    """Say whether the committed schemas break a consumer or a stored event, and how to change them compatibly.

    Every version that is not locked yet, and the newest one, is held against the versions before it, by the subject's
    mode (BACKWARD_TRANSITIVE unless schemas/subjects.toml says otherwise). Where the registry answers, it is asked too:
    it must hold what the files say, and must come to the same verdict.

    Exit status 100 when something is found, 1 when gate and registry disagree, or when a registry that was to be asked
    (--registry, --locked) answers with an error.
    """
    from streams.flow.discover import select_pipelines  # noqa: PLC0415 - start-up time of the command line
    from streams.schemas.catalog import Catalog  # noqa: PLC0415 - as above
    from streams.schemas.gate.check import check_subject, not_locked  # noqa: PLC0415 - as above
    from streams.schemas.lock import read_lock, removed_subjects  # noqa: PLC0415 - as above

    catalog, broken = Catalog.read()
    chosen = _chosen(catalog, broken, subjects)
    lock, pipelines, trial = read_lock(catalog.root), select_pipelines(None), _mode(mode)
    verdicts = [check_subject(catalog, each, lock, pipelines, mode=trial) for each in _healthy(catalog, chosen)]
    asked = _Asked(verdicts, "registry", "not asked (--offline)")
    if registry is not False:
        asked = _ask_registry(catalog, verdicts, insist=registry is True, heed_errors=locked)
    verdicts = asked.verdicts
    findings = [f for f in broken if f.subject in chosen]
    findings += [f for verdict in verdicts for f in verdict.findings]
    findings += [] if subjects else removed_subjects(catalog, lock, chosen)
    if locked:
        findings += [f for verdict in verdicts for f in not_locked(catalog, verdict)]
    if output is FindingsFormat.JSON:
        echo_json(
            {
                "compatible": not findings,
                "registry": {"url": asked.url, "asked": asked.why_not is None, "why_not": asked.why_not},
                "subjects": [_verdict_row(verdict) for verdict in verdicts],
                "findings": [finding.as_json() for finding in findings],
            }
        )
    else:
        echo_findings(findings, output)
        if output is FindingsFormat.TEXT:
            _echo_verdicts(verdicts, findings, asked.in_words)
    fail_on_findings(findings, "check")


@schemas_app.command("register")
def register_command(
    subjects: SubjectsArgument = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Check, register all versions in order under the subject's mode, read them back, and print their ids.

    What is registered already stays as it is. What `check` refuses is not registered, nor is any version behind it; the
    exit status is then 100.
    """
    from streams.flow.discover import select_pipelines  # noqa: PLC0415 - start-up time of the command line
    from streams.schemas.catalog import Catalog  # noqa: PLC0415 - as above
    from streams.schemas.client import Registry  # noqa: PLC0415 - as above
    from streams.schemas.registration import preview_schemas, register_schemas  # noqa: PLC0415 - as above
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    act = preview_schemas if dry_run else register_schemas
    chosen = tuple(dict.fromkeys(subjects or ()))
    schemas = act(Catalog.load(), Registry(load_settings()), chosen, pipelines=select_pipelines(None))
    if output is Format.JSON:
        echo_json(schema_rows(schemas))
    else:
        echo_schemas(schemas)
    fail_on_refused(schemas)


@schemas_app.command("unregister")
def unregister_command(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Subject of the draft.")],
    *,
    version: Annotated[
        int | None, typer.Option(min=1, help="Version as the registry numbers it. Default: the newest it has.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Also where it cannot be told for sure that no record is written with it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Take a draft back: delete a registered version that is not locked and that no record is written with.

    Refused for a version that is in schemas/versions.lock, and for one whose id a record carries: of each topic of the
    subject, under any prefix, the newest 200,000 records are looked at. Where older ones were not looked at, where the
    broker does not answer, and for a version that is in no file, it takes --yes. A soft delete: the version leaves its
    subject, its number is not given again.
    """
    from streams.schemas.catalog import Catalog  # noqa: PLC0415 - start-up time of the command line
    from streams.schemas.client import Registry  # noqa: PLC0415 - as above
    from streams.schemas.lock import read_lock  # noqa: PLC0415 - as above
    from streams.schemas.unregistration import draft_of, take_back, why_not  # noqa: PLC0415 - as above
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    settings, catalog = load_settings(), Catalog.load()
    registry = Registry(settings)
    draft = draft_of(catalog, read_lock(catalog.root), registry, subject, version)
    use = _use_of(settings, draft)
    refusal = why_not(draft, use, forced=yes)
    if refusal is not None:
        raise StreamsError(refusal)
    if not dry_run:
        take_back(registry, draft)
    if output is Format.JSON:
        echo_json(
            {
                "subject": subject,
                "version": draft.registered.version,
                "id": draft.registered.schema_id,
                "files": list(draft.files),
                "topics": list(use.topics),
                "records": use.records,
                "gaps": list(use.gaps),
                "unregistered": not dry_run,
            }
        )
        return
    done = "would be taken back" if dry_run else "taken back"
    echo_line(f"{draft.in_words}: {done}; no record carries its id ({use.in_words})")
    for gap in use.gaps:
        echo_line(f"  not looked at: {gap}")


@schemas_app.command("list")
def list_command(output: FormatOption = Format.TEXT) -> None:
    """Show every subject: versions, ids, compatibility mode, who uses it, and drift between files and registry.

    Exit status 100 when the registry holds something else than the files say.
    """
    from streams.flow.discover import select_pipelines  # noqa: PLC0415 - start-up time of the command line
    from streams.schemas.catalog import Catalog  # noqa: PLC0415 - as above
    from streams.schemas.client import Registry  # noqa: PLC0415 - as above
    from streams.schemas.registration import list_schemas  # noqa: PLC0415 - as above
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    listed = list_schemas(Catalog.load(), Registry(load_settings()), pipelines=select_pipelines(None))
    if output is Format.JSON:
        echo_json([row for each in listed for row in _listing_rows(each)])
    else:
        _echo_listing(listed)
    drifted = [each.versions[0].subject for each in listed if each.drift]
    if drifted:
        raise FoundSomething(f"files and registry differ in {', '.join(drifted)}")


@schemas_app.command("diff")
def diff_command(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Subject to show.")],
    *,
    before: Annotated[
        int | None, typer.Option("--from", min=1, help="Version to compare from. Default: the one before --to.")
    ] = None,
    after: Annotated[
        int | None, typer.Option("--to", min=1, help="Version to compare to. Default: the newest.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show what differs between two versions of a subject, field by field, and between its files and the registry.

    Exit status 100 when the registry holds something else than the file of the same version says.
    """
    from streams.schemas.catalog import Catalog  # noqa: PLC0415 - start-up time of the command line
    from streams.schemas.gate.changes import differences  # noqa: PLC0415 - as above

    versions = {each.version: each for each in Catalog.load().versions(subject)}
    new = versions.get(after or max(versions))
    old = versions.get(before or (new.version if new else 1) - 1) if (before or (new and new.version > 1)) else None
    if new is None or (before and old is None):
        raise typer.BadParameter(f"{subject} has versions {', '.join(map(str, versions))}")
    changes = differences(old.parsed, new.parsed) if old else []
    drift, silence = _registry_differences(subject, versions)
    if output is Format.JSON:
        echo_json(
            {
                "subject": subject,
                "from": old.version if old else None,
                "to": new.version,
                "changes": [_change_row(each) for each in changes],
                "registry": {
                    "asked": silence is None,
                    "why_not": silence,
                    "drift": [
                        {"version": number, "changes": [_change_row(c) for c in found]} for number, found in drift
                    ],
                },
            }
        )
    else:
        _echo_diff(subject, old.version if old else None, new.version, changes)
        for number, found in drift:
            echo_line(f"{subject}: the registry's version {number} -> the file {number}.avsc")
            for change in found:
                echo_line(f"  {change.in_words()}")
        if silence:
            echo_line(silence, err=True)
    if drift:
        raise FoundSomething(f"{subject}: files and registry differ")


@schemas_app.command("lock")
def lock_command(output: FormatOption = Format.TEXT) -> None:
    """Add new versions to schemas/versions.lock: from then on, an edit of their files is refused.

    Lines that are there are never changed. Refuses what `check --offline` refuses.
    """
    from streams.flow.discover import select_pipelines  # noqa: PLC0415 - start-up time of the command line
    from streams.schemas.catalog import Catalog  # noqa: PLC0415 - as above
    from streams.schemas.gate.check import check_subject  # noqa: PLC0415 - as above
    from streams.schemas.lock import read_lock, write_lock  # noqa: PLC0415 - as above

    catalog = Catalog.load()
    lock, pipelines = read_lock(catalog.root), select_pipelines(None)
    findings = [f for each in catalog.subjects() for f in check_subject(catalog, each, lock, pipelines).findings]
    if findings:
        echo_findings(findings, FindingsFormat.TEXT)
        fail_on_findings(findings, "nothing was locked")
    added = write_lock(catalog, lock)
    if output is Format.JSON:
        echo_json([{"subject": each.subject, "version": each.version} for each in added])
        return
    for version in added:
        echo_line(f"{version.subject} version {version.version} is locked")
    if not added:
        echo_line("every version is locked already")


@schemas_app.command("new-version")
def new_version_command(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help="Topic whose change is incompatible: gps.positions.v1.")
    ],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written; write nothing.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Scaffold the next version of a topic: schemas, and a pipeline that runs beside the old one while producers move.

    For a change that no new version of the schema can carry. docs/evolve-a-schema.md walks through it.
    """
    from streams.flow.discover import declared_flows  # noqa: PLC0415 - start-up time of the command line
    from streams.schemas.catalog import Catalog  # noqa: PLC0415 - as above
    from streams.schemas.gate.findings import shown  # noqa: PLC0415 - as above
    from streams.schemas.scaffold import plan_new_version, write_scaffold  # noqa: PLC0415 - as above

    made = plan_new_version(Catalog.load(), topic, declared_flows())
    if not dry_run:
        write_scaffold(made)
    if output is Format.JSON:
        files = [shown(path) for path, _ in made.files]
        echo_json({"topic": made.topic, "pipeline": made.pipeline, "files": files, "next_steps": list(made.next_steps)})
        return
    for path, _ in made.files:
        echo_line(f"{'would write' if dry_run else 'wrote'} {shown(path)}")
    echo_line("Next:")
    for number, step in enumerate(made.next_steps, 1):
        echo_line(f"  {number}. {step}")


# --- what is printed --------------------------------------------------------------------------------------------------


def schema_rows(schemas: "Sequence[Registration]") -> list[dict[str, Any]]:
    """Rows for JSON output."""
    return [
        {
            "subject": one.subject,
            "version": one.version,
            "status": one.outcome.value,
            "id": one.schema_id,
            "reasons": list(one.reasons),
        }
        for one in schemas
    ]


def echo_schemas(schemas: "Sequence[Registration]") -> None:
    """Print one line per schema version, what was found against it below."""
    width = max(len(one.subject) for one in schemas)
    for one in schemas:
        shown_id = "-" if one.schema_id is None else str(one.schema_id)
        echo_line(f"{one.subject:<{width}}  {one.version:>3}  id {shown_id:>4}  {one.outcome.value}")
        if one.findings:
            echo_findings(one.findings, FindingsFormat.TEXT)


def fail_on_refused(schemas: "Sequence[Registration]") -> None:
    """End with exit status 100 when a schema was refused, with 1 when the registry disagrees about one.

    Raises:
        FoundSomething: something was refused.
        StreamsError: gate and registry disagree.

    """
    fail_on_findings([finding for one in schemas for finding in one.findings], "refused")


def _listing_rows(listing: "Listing") -> list[dict[str, Any]]:
    usage = listing.usage
    shared = {
        "compatibility": listing.mode,
        "topics": list(usage.topics),
        "pipelines": [*usage.readers, *usage.writers],
        "drift": list(listing.drift),
    }
    return [{**row, **shared} for row in schema_rows(listing.versions)]


def _echo_listing(listed: "Sequence[Listing]") -> None:
    width = max(len(each.versions[0].subject) for each in listed)
    for each in listed:
        subject, usage = each.versions[0].subject, each.usage
        topics = ", ".join(usage.topics)
        used = [f"{name} reads {topics}" for name in usage.readers] + [
            f"{name} writes {topics}" for name in usage.writers
        ]
        echo_line(f"{subject:<{width}}  {each.mode:<20}  {', '.join(used) or 'no pipeline uses it'}")
        for one in each.versions:
            shown_id = "-" if one.schema_id is None else str(one.schema_id)
            echo_line(f"{'':<{width}}  version {one.version:>3}  id {shown_id:>4}  {one.outcome.value}")
        for drift in each.drift:
            echo_line(f"{'':<{width}}  drift: {drift}")


def _verdict_row(verdict: "Verdict") -> dict[str, Any]:
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


def _echo_verdicts(verdicts: "Sequence[Verdict]", findings: "Sequence[Finding]", asked: str) -> None:
    from streams.schemas.gate.findings import versions_in_words  # noqa: PLC0415 - start-up time of the command line

    if findings:
        echo_line()
    width = max((len(each.subject) for each in verdicts), default=0)
    for each in verdicts:
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
    echo_line(asked)


def _echo_diff(subject: str, before: int | None, after: int, changes: "Sequence[Difference]") -> None:
    if before is None:
        echo_line(f"{subject}: version {after} is the first one")
        return
    echo_line(f"{subject}: version {before} -> {after}")
    for change in changes:
        echo_line(f"  {change.in_words()}")
    if not changes:
        echo_line("  nothing differs")


def _change_row(change: "Difference") -> dict[str, Any]:
    return {"field": change.field, "change": change.what, "before": change.before, "after": change.after}


# --- what is asked ----------------------------------------------------------------------------------------------------


def _chosen(catalog: "Catalog", broken: "Sequence[Finding]", subjects: list[str] | None) -> list[str]:
    """The subjects that were asked for, all if none was.

    Raises:
        UsageError: there is no such subject.

    """
    if not subjects:
        return sorted({*catalog.subjects(), *(f.subject for f in broken)})
    for subject in subjects:
        if not any(f.subject == subject for f in broken):
            catalog.versions(subject)
    return list(dict.fromkeys(subjects))


def _healthy(catalog: "Catalog", chosen: Sequence[str]) -> list[str]:
    known = set(catalog.subjects())
    return [subject for subject in chosen if subject in known]


def _mode(name: str | None) -> Any:
    from streams.schemas.gate.modes import Mode  # noqa: PLC0415 - start-up time of the command line

    if name is None:
        return None
    if name.upper() not in set(Mode):
        raise typer.BadParameter(f"no mode {name!r}: there is {', '.join(Mode)}")
    return Mode(name.upper())


def _use_of(settings: "Settings", draft: "Draft") -> "Use":
    """What the topics' records say of a draft's id; a broker that does not answer is a gap."""
    from streams.flow.discover import select_pipelines  # noqa: PLC0415 - as above
    from streams.kafka.admin import partition_counts_with_leaderless, wait_for_broker  # noqa: PLC0415 - start-up time
    from streams.kafka.schema_use import schema_use  # noqa: PLC0415 - as above
    from streams.schemas.unregistration import Use, topics_of  # noqa: PLC0415 - as above

    declared = [topic.name for p in select_pipelines(None) for topic in p.topics() if topic.subject == draft.subject]
    try:
        partitions = partition_counts_with_leaderless(wait_for_broker(settings))
        chosen = topics_of(draft.subject, declared, list(partitions))
        return schema_use(settings, {topic: partitions[topic] for topic in chosen}, draft.registered.schema_id)
    except StreamsError as error:
        return Use((), 0, {}, (f"the topics could not be read ({error})",))


class _Asked(NamedTuple):
    """Verdicts with what the registry adds; why it adds nothing, if it was not asked."""

    verdicts: "list[Verdict]"
    url: str
    why_not: str | None = None

    @property
    def in_words(self) -> str:
        return f"{self.url}: {self.why_not}" if self.why_not else f"{self.url}: asked"


def _ask_registry(catalog: "Catalog", verdicts: "list[Verdict]", *, insist: bool, heed_errors: bool) -> _Asked:
    """Put the verdicts to the registry.

    Raises:
        RegistryUnavailable: it does not answer, and `insist` says that it must; or it answers with an error, such as
            401, and `heed_errors` says that this is not to be passed over.

    """
    from streams.schemas.client import Registry, RegistryUnavailable  # noqa: PLC0415 - as above
    from streams.schemas.gate.agreement import with_registry  # noqa: PLC0415 - start-up time of the command line
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    registry = Registry(load_settings())
    if not verdicts:
        return _Asked(verdicts, registry.url_shown, "not asked, no subject can be judged")
    try:
        return _Asked([with_registry(catalog, registry, verdict) for verdict in verdicts], registry.url_shown)
    except RegistryUnavailable as error:
        if insist or (heed_errors and error.answered):
            raise
        reason = error.reason or "no usable answer"
        silence = "it answers with an error" if error.answered else "it does not answer"
        return _Asked(verdicts, registry.url_shown, f"not asked, {silence} ({reason}): judged by the files alone")


def _registry_differences(
    subject: str, versions: dict[int, Any]
) -> "tuple[list[tuple[int, list[Difference]]], str | None]":
    """Differences between what the registry holds and the files of the same number; or why it was not asked."""
    from streams.schemas.client import Registry, RegistryUnavailable  # noqa: PLC0415 - as above
    from streams.schemas.gate.agreement import registry_state  # noqa: PLC0415 - start-up time of the command line
    from streams.schemas.gate.changes import Difference, differences  # noqa: PLC0415 - as above
    from streams.schemas.located import located  # noqa: PLC0415 - as above
    from streams.settings import load_settings  # noqa: PLC0415 - as above

    try:
        state = registry_state(Registry(load_settings()), subject)
    except RegistryUnavailable as error:
        return [], str(error)
    if not state.versions:
        return [], f"{subject} is not in the registry yet"
    found = []
    for each in state.versions:
        file = versions.get(each.version)
        if each.version in state.unreadable:
            changes = [Difference("", "registered as", state.unreadable[each.version], "Avro")]
        else:
            changes = differences(located(each.text), file.parsed) if file else []
        if changes:
            found.append((each.version, changes))
    return found, None
