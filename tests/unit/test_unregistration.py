"""Which drafts may be taken back, and where their records are looked for."""

import json
from pathlib import Path

import pytest

from streams.errors import StreamsError
from streams.schemas.catalog import Catalog
from streams.schemas.client import RegisteredVersion, Registry
from streams.schemas.lock import digest
from streams.schemas.unregistration import Draft, Use, draft_of, topics_of, why_not
from streams.settings import load_settings

SUBJECT = "things.v1-value"
FIRST, SECOND = (
    json.dumps({"type": "record", "name": "Thing", "fields": [{"name": name, "type": "string", "default": ""}]})
    for name in ("a", "b")
)


class RegistryTwin(Registry):
    """A registry in memory that holds some versions of everything."""

    def __init__(self, *texts: str) -> None:
        super().__init__(load_settings())
        self._held = [RegisteredVersion(number, number + 10, text) for number, text in enumerate(texts, 1)]

    def registered(self, subject: str) -> list[RegisteredVersion]:
        del subject
        return self._held


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    (tmp_path / SUBJECT).mkdir()
    for number, text in enumerate((FIRST, SECOND), 1):
        (tmp_path / SUBJECT / f"{number}.avsc").write_text(text, encoding="utf-8")
    return Catalog.load(tmp_path)


LOCK = {(SUBJECT, 1): digest(FIRST)}


def test_the_newest_version_is_taken_unless_another_is_named(catalog: Catalog) -> None:
    twin = RegistryTwin(FIRST, SECOND)
    assert (2, (2,)) == (draft_of(catalog, LOCK, twin, SUBJECT, None).registered.version, (2,))
    assert (
        "things.v1-value version 1 (id 11, the file of version 1)" == draft_of(catalog, {}, twin, SUBJECT, 1).in_words
    )
    with pytest.raises(StreamsError, match=r"version 1 is locked \(versions\.lock has it as version 1\)"):
        draft_of(catalog, LOCK, twin, SUBJECT, 1)
    with pytest.raises(StreamsError, match=r"version 3 is not in the registry at .*: it has versions 1 and 2"):
        draft_of(catalog, LOCK, twin, SUBJECT, 3)
    with pytest.raises(StreamsError, match=r"^things\.v1-value is not in the registry"):
        draft_of(catalog, LOCK, RegistryTwin(), SUBJECT, None)


def test_what_counts_is_what_a_version_says_not_its_number(catalog: Catalog) -> None:
    turned = RegistryTwin(SECOND, FIRST)
    assert (2,) == draft_of(catalog, LOCK, turned, SUBJECT, 1).files
    with pytest.raises(StreamsError, match="is locked"):
        draft_of(catalog, LOCK, turned, SUBJECT, 2)


def test_a_version_of_another_kind_or_subject_is_a_draft_in_no_file(catalog: Catalog) -> None:
    twin = RegistryTwin('syntax = "proto3"; message Thing {}')
    assert () == draft_of(catalog, LOCK, twin, SUBJECT, None).files
    assert () == draft_of(catalog, LOCK, RegistryTwin(FIRST), "others.v1-value", None).files


def draft(*files: int) -> Draft:
    return Draft(SUBJECT, RegisteredVersion(3, 13, SECOND), files)


UNUSED = Use(("things.v1",), 12, {})


def test_a_draft_that_no_record_carries_is_taken_back() -> None:
    assert why_not(draft(3), UNUSED, forced=False) is None
    assert why_not(draft(3), Use((), 0, {}), forced=False) is None
    assert "12 records of 1 topic looked at" == UNUSED.in_words


@pytest.mark.parametrize(
    ("files", "use", "words"),
    [
        ((3,), Use(("things.v1",), 5, {}, ("things.v1 has about 7 older records",)), "about 7 older records"),
        ((3,), Use((), 0, {}, ("the topics could not be read (no broker)",)), "the topics could not be read"),
        ((), UNUSED, "in no file here"),
    ],
)
def test_where_its_use_cannot_be_told_it_takes_yes(files: tuple[int, ...], use: Use, words: str) -> None:
    said = why_not(draft(*files), use, forced=False)
    assert said is not None
    assert words in said
    assert said.endswith("--yes takes it back all the same")
    assert why_not(draft(*files), use, forced=True) is None


def test_a_draft_in_use_is_kept_whatever_is_said() -> None:
    used = Use(("things.v1",), 5, {"things.v1": 1_200})
    for forced in (False, True):
        said = why_not(draft(3), used, forced=forced)
        assert said is not None
        assert "records in things.v1 (1,200) carry its id" in said


def test_topics_of_every_prefix_and_what_stands_beside_them_are_looked_at() -> None:
    there = ["things.v1", "stage-things.v1", "things.v1.clean", "stage-things.v1.dlq", "things.v1.journal", "others.v1"]
    assert ["stage-things.v1", "stage-things.v1.dlq", "things.v1", "things.v1.clean"] == topics_of(SUBJECT, [], there)
    assert ["others.v1"] == topics_of(SUBJECT, ["others.v1"], there)
