"""`streams schemas register`, `unregister` and `list`: what the registry has."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.cli.schemas.results import SubjectsArgument, echo_schemas, fail_on_refused, schema_rows
from streams.errors import FoundSomething, StreamsError
from streams.flow.discover import select_pipelines
from streams.kafka.draft_use import use_of_draft
from streams.schemas.catalog import Catalog
from streams.schemas.client import Registry
from streams.schemas.lock import read_lock
from streams.schemas.registration import Listing, list_schemas, preview_schemas, register_schemas
from streams.schemas.unregistration import draft_of, take_back, why_not
from streams.settings import load_settings


def register_command(
    subjects: SubjectsArgument = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Check, register all versions in order under the subject's mode, read them back, and print their ids.

    Registered versions stay as they are. A version that `check` refuses is not registered, nor is any version after it;
    the exit status is then 100.
    """
    act = preview_schemas if dry_run else register_schemas
    chosen = tuple(dict.fromkeys(subjects or ()))
    schemas = act(Catalog.load(), Registry(load_settings()), chosen, flows=select_pipelines(None))
    if output is Format.JSON:
        echo_json(schema_rows(schemas))
    else:
        echo_schemas(schemas)
    fail_on_refused(schemas)


def unregister_command(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Subject of the draft.")],
    *,
    version: Annotated[
        int | None, typer.Option(min=1, help="Version as the registry numbers it. Default: the newest it has.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Also if it is not certain that no record uses it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Take a draft back: delete a registered version that is not locked and that no record uses.

    Refused for a version that is in schemas/versions.lock, and for one whose id a record carries: of each topic of the
    subject, under any prefix, the newest 200,000 records are looked at. If older ones were not read, if the broker does
    not answer, and for a version that is in no file, --yes is required. It is a soft delete: the version leaves its
    subject, and its number is not used again.
    """
    settings, catalog = load_settings(), Catalog.load()
    registry = Registry(settings)
    draft = draft_of(catalog, read_lock(catalog.root), registry, subject, version)
    use = use_of_draft(settings, draft, select_pipelines(None))
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
        echo_line(f"  not read: {gap}")


def list_command(output: FormatOption = Format.TEXT) -> None:
    """Show every subject: versions, ids, compatibility mode, who uses it, and drift between files and registry.

    Exit status 100 when the registry's versions differ from the files.
    """
    listed = list_schemas(Catalog.load(), Registry(load_settings()), flows=select_pipelines(None))
    if output is Format.JSON:
        echo_json([row for each in listed for row in _listing_rows(each)])
    else:
        _echo_listing(listed)
    drifted = [each.versions[0].subject for each in listed if each.drift]
    if drifted:
        raise FoundSomething(f"files and registry differ in {', '.join(drifted)}")


def _listing_rows(listing: Listing) -> list[dict[str, Any]]:
    usage = listing.usage
    shared = {
        "compatibility": listing.mode,
        "topics": list(usage.topics),
        "pipelines": [*usage.readers, *usage.writers],
        "drift": list(listing.drift),
    }
    return [{**row, **shared} for row in schema_rows(listing.versions)]


def _echo_listing(listed: Sequence[Listing]) -> None:
    width = max(len(each.versions[0].subject) for each in listed)
    for each in listed:
        subject, usage = each.versions[0].subject, each.usage
        topics = ", ".join(usage.topics)
        used = [f"{name} reads {topics}" for name in usage.readers] + [
            f"{name} writes {topics}" for name in usage.writers
        ]
        echo_line(f"{subject:<{width}}  {each.mode:<20}  {', '.join(used) or 'no flow uses it'}")
        for one in each.versions:
            shown_id = "-" if one.schema_id is None else str(one.schema_id)
            echo_line(f"{'':<{width}}  version {one.version:>3}  id {shown_id:>4}  {one.outcome.value}")
        for drift in each.drift:
            echo_line(f"{'':<{width}}  drift: {drift}")
