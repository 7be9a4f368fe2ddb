"""The built site, looked at as a browser would: links and anchors lead somewhere, nothing comes from the internet."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_LOADED: Final = {"script": ("src",), "img": ("src",), "iframe": ("src",), "source": ("src",), "video": ("src",)}
_LINKS_LOADED: Final = frozenset({"stylesheet", "icon", "preload", "modulepreload", "preconnect", "manifest"})
_SHIM_ELSEWHERE: Final = "https://unpkg.com/iframe-worker/shim"


@dataclass(slots=True)
class Found:
    """What a page refers to."""

    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found = Found()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.found.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.found.links.append(given["href"])
        if tag == "link" and _LINKS_LOADED & {*given.get("rel", "").split()}:
            self.found.loaded.append(given.get("href", ""))
        self.found.loaded += [given[name] for name in _LOADED.get(tag, ()) if name in given]


def with_own_shim(site: Path) -> int:
    """Have every page take the shim for workers from the site itself; return how many pages there are.

    The theme asks the internet for it, so that search works in pages that are opened as files.
    """
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        up = "../" * len(page.relative_to(site).parent.parts)
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(_SHIM_ELSEWHERE, f"{up}javascripts/iframe-worker.js"), encoding="utf-8")
    return len(pages)


def wrong(site: Path) -> Iterator[str]:
    """What is wrong with each page, a line each."""
    for page in sorted(site.rglob("*.html")):
        if page.name == "404.html":  # its addresses begin with that of the site, which is not known
            continue
        found = _read(page)
        name = page.relative_to(site)
        for address in found.loaded:
            if urlsplit(address).scheme not in ("", "data") or address.startswith("//"):
                yield f"{name}: loads {address}"
            elif urlsplit(address).scheme == "" and not _target(page, site, address).exists():
                yield f"{name}: loads {address}, which does not exist"
        for link in dict.fromkeys(found.links):
            if _is_dead(page, site, link):
                yield f"{name}: dead link {link}"


def outside(site: Path) -> list[str]:
    """Every address elsewhere that a page links to. Nothing fetches them."""
    pages = (page for page in site.rglob("*.html"))
    return sorted({link for page in pages for link in _read(page).links if urlsplit(link).scheme in ("http", "https")})


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
