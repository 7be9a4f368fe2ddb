"""Fold the events of a key into one row."""
