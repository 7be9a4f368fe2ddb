from dataclasses import replace

import pytest

from streams.flow.declaration import Pipeline
from streams.flow.discover import pipelines, select_pipelines


@pytest.mark.parametrize("name", sorted(pipelines()))
def test_with_a_prefix_everything_is_beside_the_original_and_schemas_stay(name: str) -> None:
    plain, (beside,) = pipelines()[name], select_pipelines([name], prefix="loadtest.")
    assert [topic.name for topic in beside.topics()] == [f"loadtest.{topic.name}" for topic in plain.topics()]
    assert [topic.subject for topic in beside.topics()] == [topic.subject for topic in plain.topics()]
    assert beside.group == f"loadtest.streams.{name}"
    assert (beside.name, beside.tables) == (
        plain.name, tuple(replace(one, topic=f"loadtest.{one.topic}") for one in plain.tables)
    )  # fmt: skip


def test_without_a_prefix_a_pipeline_is_itself() -> None:
    assert select_pipelines(None) == list(pipelines().values())


def test_prefixes_add_up() -> None:
    assert Pipeline("x", source="x.v1").with_prefix("b.").with_prefix("a.").clean == "a.b.x.v1.clean"
    assert Pipeline("x", source="x.v1").with_prefix("b.").with_prefix("a.").group == "a.b.streams.x"
