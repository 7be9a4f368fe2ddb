"""Logical types as the gate asks about them. The judgement is the decoder's (`streams.avro.logical`)."""

from streams.avro.logical import Difference, difference, differences, misuse, unit

__all__ = ["Difference", "difference", "differences", "misuse", "unit"]
