"""The runtime: one pipeline's engine between its consumer and its producer, in one worker process."""
