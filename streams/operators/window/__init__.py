"""Fold the events of a key and a span of event time into one row."""
