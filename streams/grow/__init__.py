"""Growing a topic in place, the command's side: what is in Kafka, what follows from it, and the steps."""
