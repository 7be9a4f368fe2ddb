"""Kafka clients: administration, readers of topics and offsets, what errors mean, the partitioner."""
