"""The pages of the monitor and the one list that they are linked by."""

import re

import pytest

from streams.monitor.web.pages import FIRST, NAVIGATION, Page, all_pages, filled
from streams.monitor.web.runbooks import index_page

PAGES = all_pages([Page("/dead-letters/", "Dead <letters>")])


def links(text: str) -> list[tuple[str, str, bool]]:
    found = re.findall(r'<a href="([^"]+)"( aria-current="page")?>([^<]+)</a>', text)
    return [(path, title, bool(current)) for path, current, title in found]


@pytest.mark.parametrize("page", FIRST, ids=lambda page: page.title)
def test_each_page_links_to_all_and_says_which_it_is(page: Page) -> None:
    text = filled(page, PAGES)

    assert NAVIGATION not in text
    told = [one for one in links(text) if one[0] in {each.path for each in PAGES}]
    assert [each.path for each in PAGES] == [path for path, _, _ in told]
    assert [page.path] == [path for path, _, is_current in told if is_current]
    assert "Dead &lt;letters&gt;" in text


def test_runbooks_link_to_all_pages_too() -> None:
    assert [each.path for each in PAGES] == [path for path, _, _ in links(index_page(PAGES))[: len(PAGES)]]
