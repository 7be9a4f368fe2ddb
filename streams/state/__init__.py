"""State: the store protocol, RocksDB, its in-memory twin, the journal codec."""
