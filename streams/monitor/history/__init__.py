"""Lag and throughput over hours, and what happened to groups meanwhile: kept in memory, or read from Prometheus."""
