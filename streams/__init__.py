"""Exactly-once stream processing for logistics events in Python, on Kafka."""

__version__ = "0.1.0"
