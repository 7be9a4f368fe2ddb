"""Dead letters: review, fix, replay, discard. Command line and web page call the same functions."""
