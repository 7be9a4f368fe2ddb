"""`python -m docsite build` and `serve`: what `make docs` and `make docs-serve` run."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from docsite import built
from docsite.navigation import NavigationError
from docsite.reference.api import NameWithoutPage
from docsite.stage import ROOT, stage

TARGET: Final = ROOT / "build" / "docs"
app = typer.Typer(add_completion=False, no_args_is_help=True)
Builder = Annotated[Path, typer.Option(help="The program `zensical`.")]


@app.command()
def build(zensical: Builder) -> None:
    """Build the site and check it; exit status 1 with a line for each thing that is wrong."""
    _staged()
    done = subprocess.run([zensical, "build", "--strict", "--config-file", "zensical.toml"], cwd=TARGET, check=False)
    if done.returncode:
        raise typer.Exit(1)
    site = TARGET / "site"
    count = built.with_own_shim(site)
    wrong = list(built.wrong(site))
    for line in wrong:
        typer.echo(line, err=True)
    if wrong:
        raise typer.Exit(1)
    listed = built.outside(site)
    (TARGET / "links.txt").write_text("\n".join([*listed, ""]), encoding="utf-8")
    typer.echo(
        f"{count} pages in {site.relative_to(ROOT)}: open index.html. Every link and anchor leads somewhere, nothing "
        f"is loaded from the internet. Links to other sites, which nothing fetches: {len(listed)}, in "
        f"{TARGET.relative_to(ROOT)}/links.txt"
    )


@app.command()
def serve(zensical: Builder, port: int = 8000) -> None:
    """Serve the pages at 127.0.0.1 until Ctrl-C. Pages are read when this starts."""
    _staged()
    subprocess.run(
        [zensical, "serve", "--config-file", "zensical.toml", "--dev-addr", f"127.0.0.1:{port}"],
        cwd=TARGET,
        check=False,
    )


def _staged() -> None:
    try:
        stage(TARGET)
    except (NavigationError, NameWithoutPage) as error:
        typer.echo(error, err=True)
        sys.exit(1)


if __name__ == "__main__":
    app()
