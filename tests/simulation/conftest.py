"""Nothing that the engine logs is shown: a simulation logs what a worker does in weeks."""

from typing import NoReturn

import pytest
import structlog


@pytest.fixture(autouse=True)
def quiet(logging_as_before: None) -> None:
    structlog.configure(processors=[_drop])


def _drop(*_: object) -> NoReturn:
    raise structlog.DropEvent
