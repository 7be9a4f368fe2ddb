"""The pages of the monitor: one list, from which the navigation of every page is made.

A page is a file in `streams/monitor/static` with the mark `NAVIGATION` where the links go, and an entry in this list.
A `Panel` (`app.py`), an application of its own that is mounted beside these pages, is in the list by itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parents[1] / "static"
NAVIGATION: Final = "<!-- navigation -->"
"""Where a page's file has its links to the other pages."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page that the navigation links to."""

    path: str
    title: str
    file: str = ""
    """Name of its file in `STATIC`; empty: `path` is served by something else."""


FIRST: Final = (Page("/", "Monitor", "monitor.html"), Page("/flows", "Flows", "flows.html"))
LAST: Final = (Page("/runbooks", "Runbooks"), Page("/metrics", "Metrics"))


def all_pages(panels: Iterable[Page] = ()) -> tuple[Page, ...]:
    """All pages in the order of the navigation; `panels`: pages that other parts bring."""
    return (*FIRST, *panels, *LAST)


def of_clusters(names: Sequence[str]) -> tuple[Page, ...]:
    """The pages of clusters, where there are several: the first is at `/`."""
    return tuple(Page(f"/clusters/{name}/" if place else "/", name) for place, name in enumerate(names))


def navigation(pages: Iterable[Page], current: str) -> str:
    """Links to all pages as HTML; the link to the path `current` is marked as the current page."""
    return "\n".join(
        f'<a href="{escape(page.path)}"{" aria-current=" + chr(34) + "page" + chr(34) if page.path == current else ""}>'
        f"{escape(page.title)}</a>"
        for page in pages
    )


def filled(page: Page, pages: Sequence[Page], base: str = "", clusters: Sequence[Page] = ()) -> str:
    """The text of a page's file with the navigation in it.

    `base`: path that the pages of its cluster are below. `clusters`: those to choose from, where there are several.

    Raises:
        OSError: there is no such file: the package is not whole.

    """
    text = (STATIC / page.file).read_text(encoding="utf-8")
    own = [replace(one, path=f"{base}{one.path}") if one in FIRST else one for one in pages]
    links = navigation(own, f"{base}{page.path}")
    if clusters:
        choice = navigation(clusters, f"{base}/")
        links = f'<span role="group" aria-label="Clusters" class="clusters">{choice}</span>\n{links}'
    return text.replace(NAVIGATION, links).replace('data-base=""', f'data-base="{escape(base)}"')
