"""Delivery reports of the records of a transaction: which offset a record got, or why it failed."""

from collections.abc import Callable

from confluent_kafka import KafkaError, Message

from streams.sinks.kafka.refusal import REFUSALS, RefusalSearch

Report = Callable[[KafkaError | None, Message], None]


class DeliveryReports:
    """Makes the delivery reports of one producer, a transaction at a time."""

    def __init__(self, search: RefusalSearch) -> None:
        self._search = search
        self.failed: KafkaError | None = None
        """Error of a record of the open transaction, by its delivery report."""
        self._run = object()
        """The open transaction: reports of earlier ones are ignored."""

    def begin(self) -> None:
        """A transaction begins."""
        self.failed = None
        self._run = object()

    def delivered(self, on_delivered: Callable[[int], None]) -> Report:
        """A report that says at which offset the record is."""

        def report(error: KafkaError | None, message: Message) -> None:
            if error is None:
                on_delivered(int(message.offset() or 0))
            else:
                self.failed = error

        return report

    def searched(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        origin: int | None,
        on_delivered: Callable[[int], None] | None,
    ) -> Report:
        """A report that also tells the search for refused records of a failure."""
        run = self._run

        def report(error: KafkaError | None, message: Message) -> None:
            if run is not self._run:
                return
            if error is None:
                if on_delivered is not None:
                    on_delivered(int(message.offset() or 0))
                return
            self._search.failed(topic, key, value, origin, message.partition(), error)
            if self.failed is None or error.code() in REFUSALS:
                self.failed = error

        return report
