"""What consumers may fetch ahead counts to the memory setting: a client without a bound takes up to 64 MB."""

from typing import Any

import pytest

from streams.kafka import clients
from streams.kafka.changelog import ChangelogReaders, KafkaChangelog
from streams.kafka.log_reader import LogReader
from streams.limits import RESTORES_MAX
from streams.resilience.retry import Retrier
from streams.settings import Settings

QUEUE = "queued.max.messages.kbytes"
SMALL = Settings(streams_memory_mb_max=512)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Configurations of the consumers that were made."""
    seen: list[dict[str, Any]] = []

    class Noted(clients.Consumer):
        def __init__(self, config: dict[str, Any], **further: Any) -> None:
            seen.append(config)
            super().__init__(config, **further)

    monkeypatch.setattr(clients, "Consumer", Noted)
    return seen


def test_a_consumer_that_says_nothing_is_bounded_by_the_memory_setting(made: list[dict[str, Any]]) -> None:
    clients.consumer(SMALL, {"group.id": "g"}).close()
    assert [config[QUEUE] for config in made] == [512 * 1024 // 32]


def test_a_consumer_that_says_less_keeps_its_own_bound(made: list[dict[str, Any]]) -> None:
    LogReader(SMALL, client="reader", group="reader").close()
    assert [config[QUEUE] for config in made] == [8_192]


def test_with_much_memory_it_is_what_the_client_does_by_itself() -> None:
    assert clients.queue_kbytes_max(Settings(streams_memory_mb_max=16_384)) == 65_536


def test_restores_side_by_side_share_what_one_consumer_may_take(made: list[dict[str, Any]]) -> None:
    readers = ChangelogReaders(SMALL, group="g", source="s", retrier=Retrier())
    with readers.reader(lambda: True):
        pass
    readers.close_idle()
    KafkaChangelog(SMALL, group="g", source="s", retrier=Retrier()).close()
    assert made
    assert all(RESTORES_MAX * config[QUEUE] <= clients.queue_kbytes_max(SMALL) for config in made)
