"""`streams schemas`: the committed schemas and the registry, and the gate between them."""
