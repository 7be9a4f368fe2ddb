"""Load: seeded traffic, an oracle, benchmarks and what they are compared with."""
