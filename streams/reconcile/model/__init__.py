"""The second opinion: what must become of each record of a partition, one record at a time, in plain Python.

It imports nothing of the engine, its operators, its codecs or its state, so that an error would have to be made twice
to stay unseen. The load test's oracle goes by the same rules.
"""
