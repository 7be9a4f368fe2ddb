"""Drop copies of an event: the identities of recent events, in memory and in pages of the store."""
