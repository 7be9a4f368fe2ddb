"""`python -m loadtest.generator`: a process that writes seeded traffic to a topic and knows what must become of it."""
