"""Operators of the logistics flows: orders are sent to their vehicles, promises watched, orders followed."""
