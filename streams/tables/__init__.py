"""Tables that can be asked over HTTP: committed rows by key and range, from the worker that has them."""
