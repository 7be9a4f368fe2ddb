"""The on-call run: four things go wrong on a real stack; who notices, when, and what it looks like."""
