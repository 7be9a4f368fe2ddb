"""Read dead letters from their topics; list, replay and discard them."""
