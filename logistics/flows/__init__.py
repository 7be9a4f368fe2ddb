"""The flows. Every module here declares one or more."""
