"""Kafka topics as a sink: one transactional producer."""
