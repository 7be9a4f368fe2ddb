"""`make loadtest ARGS='--grow 3:12'`: what users of a flow notice while its topics grow, and what is gained."""
