"""Rights in a Kafka cluster: which each role needs, derived from the declared flows, and how they compare. Pure."""
