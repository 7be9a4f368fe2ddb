"""Flows: how one is declared, and where the declared ones are found."""
