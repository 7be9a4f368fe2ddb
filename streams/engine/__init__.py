"""The engine: partition tasks, the commit cycle and restore; it knows Kafka and the store by protocol only."""
