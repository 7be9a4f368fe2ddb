"""Identity of a flow's topics: the cluster's id, and the id that Kafka gave each topic at its creation (KIP-516)."""

import threading

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.kafka.admin import REQUEST_TIMEOUT_S, admin_client, described, settled
from streams.settings import Settings
from streams.state.identity import Places


class KafkaPlaces:
    """Reads the identity of a flow's topics from the cluster. Any thread."""

    def __init__(self, settings: Settings, flow: Pipeline) -> None:
        """For the topics of `flow`. The journal has as many partitions as the flow's state."""
        self._settings = settings
        self._topics = [topic.name for topic in flow.topics()]
        self._journal = flow.journal
        self._client = admin_client(settings)
        self._lock = threading.Lock()

    def find(self) -> Places:
        """The identity of all topics.

        Raises:
            StreamsError: no answer, or topics are missing.

        """
        with self._lock:
            try:
                cluster = str(self._client.list_topics(timeout=REQUEST_TIMEOUT_S).cluster_id)
                found = self._described(self._topics)
            except KafkaException as error:
                self._client = admin_client(self._settings)
                raise StreamsError(f"asking for the ids of topics: {described(error)}") from None
        missing = sorted(set(self._topics) - found.keys())
        if missing:
            raise StreamsError(f"topics are missing ({', '.join(missing)}): create them with `streams topics apply`")
        ids = {name: topic_id for name, (topic_id, _) in found.items()}
        return Places(cluster, ids, found[self._journal][1])

    def id_of(self, topic: str) -> str | None:
        """Id of one topic; None when it does not exist.

        Raises:
            StreamsError: no answer.

        """
        with self._lock:
            topic_id, _ = self._described([topic]).get(topic, (None, 0))
            return topic_id

    def _described(self, topics: list[str]) -> dict[str, tuple[str, int]]:
        """Id and number of partitions of the topics that exist."""
        asked = self._client.describe_topics(TopicCollection(topics), request_timeout=REQUEST_TIMEOUT_S)
        found: dict[str, tuple[str, int]] = {}
        for name, future in asked.items():
            told = settled(f"describing topic {name}", future, fine=(KafkaError.UNKNOWN_TOPIC_OR_PART,))
            if told is not None:
                found[name] = (str(told.topic_id), len(told.partitions))
        return found
