"""The engine: partition tasks, the commit cycle and restore; uses Kafka and the store through protocols only."""
