"""`streams reconcile --sink NAME`: the rows of a target against the records of the topic that they are copied from.

`held.py` reads what a target holds, as of one moment, `demand.py` what the topic makes of it, `compare.py` finds the
differences, `run.py` reads the topic up to where the target stands, `report.py` makes the document.
"""
