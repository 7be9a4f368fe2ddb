"""Kafka Streams as a baseline: a program of ours in Java, its locked libraries, and how it is compiled and started."""
