"""REST sources polled into source topics: `streams pull NAME`.

A source is a file (`declaration.py`). How far it was read (`cursor.py`) is committed in the transaction of the events
(`run.py`), so that a kill at any moment loses nothing and doubles nothing in the topic.
"""
