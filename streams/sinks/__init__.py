"""Where results go: the `Transactions` and `Sink` protocols, Kafka, and twins in memory."""
