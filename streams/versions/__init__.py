"""Versions of flows: what is recorded of each, and which one is current. Pure."""
