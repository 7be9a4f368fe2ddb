"""A worker process: threads, ownership of partitions, commit cycles, restores, what it says of itself."""
