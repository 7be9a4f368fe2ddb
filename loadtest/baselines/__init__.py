"""References of the benchmark: the same work (or none) done by other means."""
