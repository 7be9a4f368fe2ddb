"""REST sources, polled."""
