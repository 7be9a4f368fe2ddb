"""`streams dlq`: dead letters listed, shown, replayed, discarded."""
