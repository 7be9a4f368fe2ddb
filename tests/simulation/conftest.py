"""Nothing that the engine logs is shown: a simulation logs what a worker does in weeks."""

from collections.abc import Iterator
from typing import NoReturn

import pytest
import structlog


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    yield
    structlog.configure(**before)


def _drop(*_: object) -> NoReturn:
    raise structlog.DropEvent
