"""Dead letters: the envelope of a rejected record."""
