"""Join the events of two inputs that were merged."""
