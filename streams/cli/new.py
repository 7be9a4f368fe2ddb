"""`streams new`: creates a project."""

from pathlib import Path
from typing import Annotated

import typer

from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.project.create import create_project


def new(
    project: Annotated[
        Path, typer.Argument(metavar="PROJECT", help="Folder to create; its name is the name of the project.")
    ],
    output: FormatOption = Format.TEXT,
) -> None:
    """Create a repository for flows of your own: a flow, schemas, a test without a broker, what builds and ships them.

    It passes its own tests as it stands: `make test` in the folder. It refuses the name of an existing Python module,
    and a folder that is not empty.
    """
    made = create_project(project)
    if output is Format.JSON:
        files = [str(path) for path in made.files]
        echo_json({"name": made.name, "package": made.package, "directory": str(made.directory), "files": files})
        return
    for path in made.files:
        echo_line(f"wrote {made.directory / path}")
    echo_line("Next:")
    echo_line(f"  1. cd {made.directory} && make test")
    echo_line(f"  2. declare your flows in {made.package}/flows/, a module for each, and their schemas in schemas/")
    echo_line(f"  3. export STREAMS_APP={made.package}, then `make up` and `streams worker`")
