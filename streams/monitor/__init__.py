"""The monitor: consumer lag, sources, workers, dead letters and the service level objective, judged and shown."""
