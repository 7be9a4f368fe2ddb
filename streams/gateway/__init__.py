"""Events by HTTP into the source topics of the declared flows: `streams gateway`.

An event is accepted (202) when Kafka has acknowledged it. What cannot be an event is a dead letter and a 422. Bodies
are read within bounds (`bodies.py`), taken apart (`json_records.py`, `avro_records.py`, `formats.py`), made into events
(`rows.py`) together with those of other requests (`batching.py`), and sent (`delivery.py`). `service.py` is the way of
a request, `app.py` the routes, `process.py` the process.
"""
