"""Dead letters, pure: their envelopes, audit records, columns over many of them, one taken apart."""
