"""The gateway: a real server on loopback, with Kafka's place taken by a list unless a test has the stack."""
