"""PostgreSQL as a target: rows, offsets and fences in one transaction. Needs the extra `postgres`."""
