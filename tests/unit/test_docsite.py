"""The documentation site: navigation, staging, figures, words, and the check of what was built."""

import re
from pathlib import Path

import pytest

from docsite import __main__ as command
from docsite import built
from docsite.drawings.__main__ import FIGURES, FOLDER
from docsite.markdown import for_the_site
from docsite.navigation import NavigationError, sections
from docsite.reference import api, headers
from docsite.stage import stage
from docsite.words.findings import by_proselint, by_vocabulary
from docsite.words.prose import Passage, of_module, of_page
from streams.batch.rejects import DeadLetter, Reason, Reject
from streams.deadletters.letter.envelope import envelope_headers
from tests.documents import ROOT

ARCHITECTURE_WORDS_MAX = 1_200


def as_it_is(image: str, text: str, target: str) -> str:
    return f"{image}[{text}]({target})"


def test_every_page_is_in_the_navigation_once() -> None:
    files = [file for section in sections(ROOT) for file in section.files()]
    assert len(files) == len({*files})
    assert {str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")} - {"docs/README.md"} <= {*files}


def test_a_page_in_no_list_is_refused_by_name(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "README.md").write_text("# All\n\n## Guides\n\n- [A](a.md): one.\n- [Gone](gone.md): none.\n")
    (docs / "a.md").write_text("# A\n")
    (docs / "b.md").write_text("# B\n")
    with pytest.raises(
        NavigationError, match=r"docs/gone.md: listed, but there is no such file\ndocs/b.md: listed nowhere"
    ):
        sections(tmp_path)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("site")).parent / "pages"


def test_every_link_between_staged_pages_leads_to_one(staged: Path) -> None:
    dead = []
    for page in staged.rglob("*.md"):
        text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        text = re.sub(r"`[^`]*`", "", text)
        targets = [target for target in re.findall(r"\]\(([^)\s#]+)", text) if not re.match(r"\w+:", target)]
        dead += [f"{page.relative_to(staged)}: {one}" for one in targets if not (page.parent / one).is_file()]
    assert [] == dead


def test_the_reference_has_every_command_setting_and_public_name(staged: Path) -> None:
    reference = "".join(page.read_text(encoding="utf-8") for page in (staged / "reference").rglob("*.md"))
    assert "## streams topics grow" in reference
    assert "STREAMS&#95;<wbr>LATENESS&#95;<wbr>MS" in reference
    assert "streams&#95;<wbr>events&#95;<wbr>total" in reference
    assert "kafka&#95;<wbr>consumergroup&#95;<wbr>group&#95;<wbr>lag" in reference
    assert all(f"::: {home}.{name}" in reference for name, home in api.homes().items())


def test_the_reference_has_every_header_that_a_dead_letter_gets() -> None:
    letter = DeadLetter(Reject(0, Reason.MALFORMED, "why"), 0, 0, 0, None, b"", None)
    written = {name for name, _ in envelope_headers(letter, source="a.v1", group="g", now_ms=0)}
    assert set() == written - {name for name, _ in headers.DEAD_LETTERS}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_what_its_drawing_makes(name: str) -> None:
    assert (FOLDER / f"{name}.svg").read_text(encoding="utf-8") == FIGURES[name]().svg()


def test_the_architecture_is_short() -> None:
    assert ARCHITECTURE_WORDS_MAX >= len((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split())


def test_a_list_after_a_sentence_and_code_in_an_item_are_indented_for_the_site() -> None:
    page = "It has:\n- one\n  ```\n  code\n  ```\n- two\n  and more\n"
    wanted = "It has:\n\n- one\n    ```\n    code\n    ```\n- two\n    and more\n"
    assert wanted == for_the_site(page, as_it_is)


def test_a_bar_in_code_of_a_table_is_shown_without_its_backslash() -> None:
    assert r"| <code>a&#124;b</code> |" == for_the_site(r"| `a\|b` |", as_it_is)


def test_code_is_no_link() -> None:
    assert "`[a](b)` and [c](D)" == for_the_site("`[a](b)` and [c](d)", lambda _, text, to: f"[{text}]({to.upper()})")


def test_what_a_built_page_lacks_or_loads_from_elsewhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">b</a><a href="b.html#gone">b</a><a href="c.html">c</a>'
        '<script src="https://example.org/x.js"></script><link rel="stylesheet" href="none.css">'
        '<a href="https://example.org">elsewhere</a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="here">b</h1>')
    assert [
        "a.html: loads https://example.org/x.js",
        "a.html: loads none.css, which does not exist",
        "a.html: dead link b.html#gone",
        "a.html: dead link c.html",
    ] == list(built.wrong(tmp_path))
    assert ["https://example.org"] == built.outside(tmp_path)


def test_scripts_styles_fonts_and_images_of_another_host_are_told(tmp_path: Path) -> None:
    (tmp_path / "404.html").write_text('<script src="https://example.org/x.js"></script>')
    (tmp_path / "a.html").write_text(
        '<img srcset="https://example.org/a.png 2x"><style>@import "https://example.org/a.css";</style>'
        '<p style="background: url(//example.org/b.png)"><svg><use href="#here"/></svg><pre class="mermaid"></pre>'
    )
    (tmp_path / "fonts.css").write_text(
        "@font-face{src:url('https://example.org/f.woff2')}a{background:url(data:image/png;base64,AA)}b{src:url(b.png)}"
    )
    assert [
        "404.html: loads https://example.org/x.js",
        "a.html: loads https://example.org/a.png",
        "a.html: loads https://example.org/a.css",
        "a.html: loads //example.org/b.png",
        "a.html: has a diagram, for which the theme loads a script from unpkg.com",
        "fonts.css: loads https://example.org/f.woff2",
    ] == list(built.wrong(tmp_path))


def test_the_site_that_is_served_is_the_one_that_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = tmp_path / "zensical"
    builder.write_text(
        "#!/bin/sh\nmkdir -p site/javascripts && touch site/javascripts/iframe-worker.js\n"
        """echo '<script src="https://unpkg.com/iframe-worker/shim"></script>' > site/index.html\n"""
    )
    builder.chmod(0o700)
    served: list[tuple[Path, int]] = []
    monkeypatch.setattr(command, "TARGET", tmp_path)
    monkeypatch.setattr(command, "stage", lambda target: target)
    monkeypatch.setattr(command, "serve_folder", lambda site, port: served.append((site, port)))
    command.serve(builder, 8001)
    assert [(tmp_path / "site", 8001)] == served
    assert "unpkg" not in (tmp_path / "site" / "index.html").read_text()


def test_words_that_the_project_does_not_use_are_found_in_prose_and_not_in_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("An event behind the watermark is made anew.\n\n`behind the watermark`\n\n```\nanew\n```\n")
    found = [finding.found for passage in of_page(page) for finding in by_vocabulary(passage)]
    assert ["behind the", "anew"] == found
    module = tmp_path / "module.py"
    module.write_text('"""Made anew.\n\n    behind the code\n\nThe end.\n"""\nX = "anew"\n')
    assert ["anew"] == [finding.found for passage in of_module(module) for finding in by_vocabulary(passage)]


def test_a_word_that_is_doubled_is_found() -> None:
    (finding,) = by_proselint(Passage(Path("a.md"), 3, "It reads the the log."))
    assert str(finding).startswith("a.md:3: ")


def test_a_group_that_lags_may_be_behind() -> None:
    assert [] == list(by_vocabulary(Passage(Path("a.md"), 1, "The group is 60 s behind, behind an ingress.")))
