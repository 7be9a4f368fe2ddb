"""Growing a topic in place: the rules, without Kafka, clock or state of their own (docs/adr/0070)."""
