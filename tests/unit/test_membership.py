"""What a consumer is told of its group, and what made it fail."""

import pytest
from confluent_kafka import Consumer, KafkaError

from streams.settings import Settings
from streams.sources.kafka.membership import REFUSALS, cause_of, group_config


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("static", [True, False])
def test_the_client_takes_every_kind(protocol: str, *, static: bool) -> None:
    settings = Settings(streams_group_protocol=protocol, streams_group_static=static)
    config = group_config(settings, group="g", member="m")
    assert static == (config.get("group.instance.id") == "m")
    assert (protocol == "classic") == ("session.timeout.ms" in config)
    Consumer({**config, "bootstrap.servers": "127.0.0.1:1"}).close()


@pytest.mark.parametrize(
    ("protocol", "static", "leave", "kept"),
    [
        ("classic", True, False, True),
        ("classic", True, True, True),  # given up by unsubscribing, when it is stopped
        ("classic", False, True, False),
        ("consumer", True, False, True),
        ("consumer", True, True, False),  # the client could not give it up
    ],
)
def test_a_worker_that_is_to_leave_has_a_place_that_it_can_give_up(
    protocol: str, *, static: bool, leave: bool, kept: bool
) -> None:
    settings = Settings(streams_group_protocol=protocol, streams_group_static=static, streams_group_leave=leave)
    assert kept == ("group.instance.id" in group_config(settings, group="g", member="m"))


@pytest.mark.parametrize("code", REFUSALS)
def test_the_cause_of_a_fatal_error_is_in_its_words(code: int) -> None:
    fatal = KafkaError(KafkaError._FATAL, f"Fatal error: {KafkaError(code).str()}: ConsumerGroupHeartbeat fatal error")
    assert code == cause_of(fatal)
    assert code == cause_of(KafkaError(code))
    assert KafkaError._FATAL == cause_of(KafkaError(KafkaError._FATAL, "Fatal error: something else"))
