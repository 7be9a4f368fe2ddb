"""Readers of the file formats that can be ingested: one module a format."""
