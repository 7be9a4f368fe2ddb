"""A worker process: its threads, partition ownership, commit cycles, restores, metrics and status."""
