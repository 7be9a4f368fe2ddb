"""Operators without state: publish, filter, map."""
