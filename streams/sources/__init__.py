"""Where records come from: the `Source` protocol, Kafka, and a twin in memory."""
