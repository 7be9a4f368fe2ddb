"""Version and changelog of a release (`.ci/release.py`)."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

import streams

ROOT = Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
assert _SPEC is not None
assert _SPEC.loader is not None
release = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(release)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "__init__.py").write_text('"""Doc."""\n\n__version__ = "0.1.0"\nX = 1\n', encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.1.0 (2026-01-01)\n\n- the first\n", encoding="utf-8")
    (tmp_path / "changelog.d").mkdir()
    (tmp_path / "changelog.d" / "b.md").write_text("- two\n", encoding="utf-8")
    (tmp_path / "changelog.d" / "a.md").write_text("- one\n- and a half\n\n", encoding="utf-8")
    return tmp_path


def test_a_release_takes_the_lines_of_the_fragments_and_its_tag_finds_them(root: Path) -> None:
    release.prepared(root, "0.2.0", "2026-02-02")
    assert (root / "CHANGELOG.md").read_text(encoding="utf-8") == (
        "# Changelog\n\n## 0.2.0 (2026-02-02)\n\n- one\n- and a half\n- two\n\n## 0.1.0 (2026-01-01)\n\n- the first\n"
    )
    assert '__version__ = "0.2.0"\nX = 1' in (root / "streams" / "__init__.py").read_text(encoding="utf-8")
    assert [] == list((root / "changelog.d").iterdir())
    assert release.notes(root, "v0.2.0") == "- one\n- and a half\n- two"


def test_lines_that_are_not_released_yet_go_into_the_release(root: Path) -> None:
    changelog = root / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## 0.1.0 (unreleased)\n\n- the first\n", encoding="utf-8")
    release.prepared(root, "0.1.0", "2026-02-02")
    assert release.notes(root, "v0.1.0") == "- one\n- and a half\n- two\n- the first"


@pytest.mark.parametrize("tag", ["0.1.0", "v0.2.0", "v0.1"])
def test_a_tag_of_another_version_is_refused(root: Path, tag: str) -> None:
    with pytest.raises(release.NotReady, match=r"the source says 0\.1\.0"):
        release.notes(root, tag)


def test_a_version_without_a_dated_entry_is_refused(root: Path) -> None:
    changelog = root / "CHANGELOG.md"
    changelog.write_text("# Changelog\n\n## 0.1.0 (unreleased)\n\n- the first\n", encoding="utf-8")
    with pytest.raises(release.NotReady, match=r"does not begin with a dated entry for 0\.1\.0"):
        release.notes(root, "v0.1.0")


@pytest.mark.parametrize(("version", "says"), [("0.1.0", "released already"), ("next", "is no version")])
def test_what_cannot_be_released_is_refused(root: Path, version: str, says: str) -> None:
    with pytest.raises(release.NotReady, match=says):
        release.prepared(root, version, "2026-02-02")


def test_the_version_stands_in_one_place_and_the_changelog_begins_with_it() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in declared["project"]["dynamic"]
    source = (ROOT / "streams" / "__init__.py").read_text(encoding="utf-8")
    assert release.VERSION.findall(source) == [streams.__version__]
    entry = release.ENTRY.search((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert entry is not None
    assert entry[1] == streams.__version__


def test_the_public_api_is_what_it_lists() -> None:
    found = {name: getattr(streams, name) for name in streams.__all__}
    assert all(value is not None for value in found.values())
    assert set(streams.__all__) <= set(dir(streams))
    with pytest.raises(AttributeError, match="no attribute 'Pipeline'"):
        _ = streams.Pipeline
