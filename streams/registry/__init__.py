"""Schemas: the committed catalogue and the registry client."""
