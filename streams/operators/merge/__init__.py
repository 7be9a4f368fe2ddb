"""Merge the ordered events of several inputs into one order."""
