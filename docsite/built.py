"""Check the built site: every link and anchor leads somewhere, and no page makes a browser ask another host."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_LOADED: Final = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src",),
    "input": ("src",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src",),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
"""Attributes by element whose address a browser fetches by itself."""
_LINKS_LOADED: Final = frozenset({"stylesheet", "icon", "preload", "modulepreload", "preconnect", "manifest"})
_STYLE_LOADED: Final = re.compile(r"""url\(\s*["']?([^"')\s]+)|@import\s+["']([^"']+)""")
"""Addresses in CSS: images, fonts, further style sheets."""
_FETCHED_BY_THE_THEME: Final = {"mermaid": "a diagram", "glightbox": "a picture that opens", "ace": "an editor"}
"""Classes for which the theme's script fetches a library from unpkg.com, and what has them."""
_SHIM_ELSEWHERE: Final = "https://unpkg.com/iframe-worker/shim"


@dataclass(slots=True)
class Found:
    """What a page refers to."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    """Scripts, styles, fonts, images, frames: what a browser fetches without being asked."""
    classes: set[str] = field(default_factory=set)
    anchors: set[str] = field(default_factory=set)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = Found()
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.found.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.found.links.append(given["href"])
        if tag == "link" and _LINKS_LOADED & {*given.get("rel", "").split()}:
            self.found.loaded.append(given.get("href", ""))
        self.found.loaded += [given[name] for name in _LOADED.get(tag, ()) if name in given]
        self.found.loaded += [part.split()[0] for part in given.get("srcset", "").split(",") if part.strip()]
        self.found.loaded += loaded_by_style(given.get("style", ""))
        self.found.classes |= {*given.get("class", "").split()}
        self._in_style = tag == "style"

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.found.loaded += loaded_by_style(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_style and tag != "style"


def loaded_by_style(css: str) -> list[str]:
    """Addresses that a browser fetches for a piece of CSS."""
    return [first or second for first, second in _STYLE_LOADED.findall(css)]


def with_own_shim(site: Path) -> int:
    """Have every page load the shim for web workers from the site; return the number of pages.

    The theme's `offline` plugin loads this script from unpkg.com. Search needs it in pages that are opened as files.
    """
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        up = "../" * len(page.relative_to(site).parent.parts)
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(_SHIM_ELSEWHERE, f"{up}javascripts/iframe-worker.js"), encoding="utf-8")
    return len(pages)


def wrong(site: Path) -> Iterator[str]:
    """What is wrong with each page and style sheet, a line each."""
    for page in sorted(site.rglob("*.html")):
        found = _read(page)
        name = page.relative_to(site)
        yield from (f"{name}: loads {address}" for address in found.loaded if _is_elsewhere(address))
        for kind in sorted(found.classes & {*_FETCHED_BY_THE_THEME}):
            yield f"{name}: has {_FETCHED_BY_THE_THEME[kind]}, for which the theme loads a script from unpkg.com"
        if page.name == "404.html":  # its addresses begin with that of the site, which is not known
            continue
        for address in found.loaded:
            if urlsplit(address).scheme == "" and not _is_elsewhere(address) and not _is_there(page, site, address):
                yield f"{name}: loads {address}, which does not exist"
        for link in dict.fromkeys(found.links):
            if _is_dead(page, site, link):
                yield f"{name}: dead link {link}"
    for sheet in sorted(site.rglob("*.css")):
        addresses = loaded_by_style(sheet.read_text(encoding="utf-8"))
        yield from (f"{sheet.relative_to(site)}: loads {one}" for one in addresses if _is_elsewhere(one))


def outside(site: Path) -> list[str]:
    """Every address elsewhere that a page links to. Nothing fetches them."""
    pages = (page for page in site.rglob("*.html"))
    return sorted({link for page in pages for link in _read(page).links if urlsplit(link).scheme in ("http", "https")})


def _is_elsewhere(address: str) -> bool:
    return urlsplit(address).scheme not in ("", "data") or address.startswith("//")


def _is_there(page: Path, site: Path, address: str) -> bool:
    return not urlsplit(address).path or _target(page, site, address).exists()


def _is_dead(page: Path, site: Path, link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = _target(page, site, link) if parts.path else page
    if not target.is_file():
        return True
    anchor = unquote(parts.fragment)
    return bool(anchor) and target.suffix == ".html" and anchor not in _read(target).anchors


def _target(page: Path, site: Path, address: str) -> Path:
    path = unquote(urlsplit(address).path)
    target = site / path.lstrip("/") if path.startswith("/") else page.parent / path
    return target / "index.html" if target.is_dir() else target


@lru_cache(maxsize=2_000)
def _read(page: Path) -> Found:
    reader = _Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader.found
