"""Keep out devices of which too many records are rejected."""
