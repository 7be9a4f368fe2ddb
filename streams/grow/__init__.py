"""Growing a topic in place, the operator's side: what is found in Kafka, what follows from it, and doing it."""
