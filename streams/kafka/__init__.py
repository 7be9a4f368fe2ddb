"""Kafka: intake, transactions, topics, partitioner. The only place that imports confluent_kafka clients."""
