"""Snapshots of partitions' stores in an object store: taken while a worker runs, restored where state is missing.

A snapshot is a RocksDB checkpoint. Each of its files is an object named by the SHA-256 of its content, so that a file
that a former snapshot has is not uploaded again; a manifest, written last, names them. What is restored becomes a local
store like any other: the same checks follow, and the rest is read from Kafka.
"""
