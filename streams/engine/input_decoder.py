"""Decoding of one input: its decoder, its known schemas, and those that its records wait for."""

from streams.avro.decode import Decoder
from streams.avro.decoded import Known
from streams.avro.framing import SchemaKey
from streams.avro.known import KnownSchemas


class InputDecoder:
    """The decoder of one input of a flow, with its schemas."""

    def __init__(self, number: int, decoder: Decoder) -> None:
        self.number = number
        self.decoder = decoder
        self.known = KnownSchemas()
        self.missing: set[SchemaKey] = set()

    def learn(self, known: Known) -> None:
        """Add the registry's answers."""
        self.known.learn(known)
        self.missing -= known.keys()
