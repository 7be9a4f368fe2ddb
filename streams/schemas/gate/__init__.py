"""The verdict on a schema change: compatibility, style, usage, and whether the registry agrees."""
