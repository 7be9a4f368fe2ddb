"""Decoding of one input: its decoder, the schemas that are known of it, and those that its records wait for."""

from streams.avro.decode import Decoder
from streams.avro.decoded import Known
from streams.avro.framing import SchemaKey
from streams.avro.known import KnownSchemas


class InputDecoder:
    """Of one input of a flow. A plan is made from a writer's schema and the reader's, so each input has its own."""

    def __init__(self, number: int, decoder: Decoder) -> None:
        self.number = number
        self.decoder = decoder
        self.known = KnownSchemas()
        self.missing: set[SchemaKey] = set()

    def learn(self, known: Known) -> None:
        """Take note of what the registry answered."""
        self.known.learn(known)
        self.missing -= known.keys()
