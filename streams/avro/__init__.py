"""Avro to columns: how a record names its schema, the decoding plan of a schema pair, the decoder of a micro-batch."""
