"""The shipped application: flows of GPS positions and orders."""
