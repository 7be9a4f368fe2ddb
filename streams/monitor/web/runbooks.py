"""Serves the runbooks as pages, so that an alert's `runbook_url` works without the repository."""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

from streams.monitor.web.pages import Page, all_pages, navigation
from streams.settings import variable

DIRECTORY_VARIABLE: Final = "STREAMS_RUNBOOKS_DIR"
ALL: Final = all_pages()
"""The pages of a monitor without panels."""
_NAME: Final = re.compile(r"^[a-z][a-z0-9-]{0,63}$")
_RENDER: Final = MarkdownIt("commonmark", {"html": False}).enable("table")


def runbooks_directory() -> Path:
    """Directory of the runbooks: STREAMS_RUNBOOKS_DIR, or the one in the package (a link to docs/runbooks)."""
    configured = variable(DIRECTORY_VARIABLE)
    return Path(configured) if configured else Path(__file__).parents[1] / "runbooks"


def runbook_names() -> list[str]:
    """Names of all runbooks; empty when the directory does not exist."""
    return sorted(path.stem for path in runbooks_directory().glob("*.md") if _NAME.match(path.stem))


def runbook_page(name: str, pages: Sequence[Page] = ALL) -> str | None:
    """A runbook as an HTML page; None: there is none of this name."""
    if not _NAME.match(name):
        return None
    path = runbooks_directory() / f"{name}.md"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    return _page(name, _RENDER.render(text), pages)


def index_page(pages: Sequence[Page]) -> str:
    """A page that lists all runbooks."""
    items = "".join(f'<li><a href="/runbooks/{name}">{escape(name)}</a></li>' for name in runbook_names())
    return _page("Runbooks", f"<h1>Runbooks</h1><ul>{items or '<li>none found</li>'}</ul>", pages)


def _page(title: str, body: str, pages: Sequence[Page]) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · streams</title>"
        '<link rel="stylesheet" href="/static/monitor.css"><script src="/static/theme.js" defer></script></head>'
        f'<body class="runbook"><nav aria-label="Pages">{navigation(pages, "/runbooks")}</nav><main>{body}</main>'
        "</body></html>"
    )
