"""Nothing that the engine logs is shown: a simulation logs what a worker does in weeks."""

import pytest
import structlog


@pytest.fixture(autouse=True)
def quiet():
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    yield
    structlog.configure(**before)


def _drop(*_) -> None:
    raise structlog.DropEvent
