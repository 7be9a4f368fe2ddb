"""The scene of a fault test: its row and the fault's name come from the marker, its results go to the summary."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from streams.local.stack import Stack
from tests.faults.harness import Result, Scene, scene_of
from tests.faults.joined import join_scene_of
from tests.faults.proxy import Proxy
from tests.faults.results import PROPERTY


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fault tests run in the order of the table."""
    own = [item for item in items if item.get_closest_marker("fault")]
    places = [place for place, item in enumerate(items) if item.get_closest_marker("fault")]
    own.sort(key=lambda item: int(_marker(item).kwargs["row"]))
    for place, item in zip(places, own, strict=True):
        items[place] = item


def _marker(item: pytest.Item) -> pytest.Mark:
    marker = item.get_closest_marker("fault")
    assert marker is not None, f"{item} needs @pytest.mark.fault(row=, what=)"
    return marker


@pytest.fixture
def result(request: pytest.FixtureRequest) -> Iterator[Result]:
    """What the test finds out; handed to the summary however the test ends."""
    row, fault = (_marker(request.node).kwargs[name] for name in ("row", "what"))
    variant = getattr(getattr(request.node, "callspec", None), "id", "")
    found = Result(row, f"{fault}: {variant}" if variant else fault)
    try:
        yield found
    finally:
        request.node.user_properties.append((PROPERTY, found.as_dict()))


@pytest.fixture
def make_scene(
    request: pytest.FixtureRequest, stack: Stack, tmp_path: Path, result: Result
) -> Iterator[Callable[..., Scene]]:
    """Make a scene with these members and this environment, of the flow that the test is parametrised by."""
    made: dict[str, Callable[..., AbstractContextManager[Scene]]] = {"gps": scene_of, "join": join_scene_of}
    of = made[getattr(request, "param", "gps")]
    with ExitStack() as exits:
        yield lambda *members, **options: exits.enter_context(of(stack, tmp_path, result, *members, **options))


@pytest.fixture
def scene(make_scene: Callable[..., Scene]) -> Scene:
    """One worker."""
    return make_scene("a")


@pytest.fixture
def behind_proxy(make_scene: Callable[..., Scene], proxy: Proxy) -> Scene:
    """One worker that reaches the broker through the proxy."""
    return make_scene("a", environment={"KAFKA_BOOTSTRAP_SERVERS": proxy.address})
