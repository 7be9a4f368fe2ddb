"""`streams reconcile` compares what a flow has written with what it should have written.

`model/` computes the expected outputs from the source, and shares no code with the engine. `point.py` fixes one
consistent point of all topics, `outputs.py` reads what the flow has written, `compare/` finds every difference by
key, `run.py` goes through the partitions, `report.py` and `page.py` show what was found.
"""
