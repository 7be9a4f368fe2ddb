"""`python -m docsite build` and `serve`: what `make docs` and `make docs-serve` run."""

import subprocess
import sys
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
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
    site = _checked_site(zensical)
    listed = built.outside(site)
    (TARGET / "links.txt").write_text("\n".join([*listed, ""]), encoding="utf-8")
    typer.echo(
        f"{sum(1 for _ in site.rglob('*.html'))} pages in {site.relative_to(ROOT)}: open index.html. Every link and "
        "anchor leads somewhere, nothing is loaded from the internet. Links to other sites, which nothing fetches: "
        f"{len(listed)}, in {TARGET.relative_to(ROOT)}/links.txt"
    )


@app.command()
def serve(zensical: Builder, port: int = 8000) -> None:
    """Build and check the site as `build` does, then serve it at 127.0.0.1 until Ctrl-C.

    To see a change of a page, start this again.
    """
    serve_folder(_checked_site(zensical), port)


def serve_folder(site: Path, port: int) -> None:
    """Serve the files of a folder at 127.0.0.1 until Ctrl-C."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server, suppress(KeyboardInterrupt):
        typer.echo(f"http://127.0.0.1:{server.server_port}/")
        server.serve_forever()


def _checked_site(zensical: Path) -> Path:
    """Build the site. What is wrong with it is printed, and ends the command with exit status 1."""
    _staged()
    done = subprocess.run([zensical, "build", "--strict", "--config-file", "zensical.toml"], cwd=TARGET, check=False)
    if done.returncode:
        raise typer.Exit(1)
    site = TARGET / "site"
    built.with_own_shim(site)
    wrong = list(built.wrong(site))
    for line in wrong:
        typer.echo(line, err=True)
    if wrong:
        raise typer.Exit(1)
    return site


def _staged() -> None:
    try:
        stage(TARGET)
    except (NavigationError, NameWithoutPage) as error:
        typer.echo(error, err=True)
        sys.exit(1)


if __name__ == "__main__":
    app()
