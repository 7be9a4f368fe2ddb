"""Schemas: the committed files, the registry, and (in `gate`) what a change of a schema breaks."""
