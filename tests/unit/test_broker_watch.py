"""A client's statistics say whether it still knows a broker."""

import json

from streams.kafka.broker_watch import BrokerWatch

INTERNAL = {"name": ":0/internal", "source": "internal", "nodeid": -1, "state": "UP"}
COORDINATOR = {"name": "GroupCoordinator", "source": "logical", "nodeid": -1, "state": "DOWN"}
BOOTSTRAP = {"name": "127.0.0.1:9092/bootstrap", "source": "configured", "nodeid": -1, "state": "TRY_CONNECT"}
LEARNED = {"name": "127.0.0.1:9092/1", "source": "learned", "nodeid": 1, "state": "DOWN"}


def statistics(*brokers: dict[str, object]) -> str:
    return json.dumps({"name": "rdkafka#consumer-1", "brokers": {broker["name"]: broker for broker in brokers}})


def test_a_client_that_knows_a_broker_is_not_stranded_even_if_none_answers() -> None:
    watch = BrokerWatch()
    for brokers in ([BOOTSTRAP], [LEARNED, COORDINATOR], [BOOTSTRAP, LEARNED]) * 3:
        watch.note(statistics(INTERNAL, *brokers))

    assert not watch.is_stranded


def test_a_client_without_any_broker_is_stranded_once_it_has_been_seen_so_twice() -> None:
    watch = BrokerWatch()

    watch.note(statistics(INTERNAL, COORDINATOR))
    assert not watch.is_stranded, "it may be on its way back to its bootstrap servers"

    watch.note(statistics(INTERNAL, COORDINATOR))
    assert watch.is_stranded


def test_a_broker_in_between_means_that_it_found_back() -> None:
    watch = BrokerWatch()
    for brokers in ([], [BOOTSTRAP], []):
        watch.note(statistics(INTERNAL, *brokers))

    assert not watch.is_stranded
