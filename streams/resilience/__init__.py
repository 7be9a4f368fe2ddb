"""What calls of other systems have in common: retries with backoff, circuit breakers, prefetching."""
