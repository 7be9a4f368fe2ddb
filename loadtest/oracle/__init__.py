"""The oracle: what the engine must have done with an input log, computed by other means, compared with its output."""
