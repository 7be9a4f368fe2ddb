"""A Kafka topic as a source: one member of a consumer group."""
