"""Runs a flow over its history into a version of its own (`streams backfill`), and has that take over."""
