"""What a comparison of a target has found, as the document that text, JSON and page are made of."""

from streams.reconcile.differences import instant
from streams.reconcile.report import Document, Personal, counts_of, rows_by_key
from streams.sink.reconcile.run import SinkResult


def document_of_sink(result: SinkResult, personal: Personal) -> Document:
    """Everything, for JSON."""
    findings, reach, spec = result.findings, result.reach, result.sink.spec
    return {
        "flow": f"sink {spec.name}",
        "source": spec.topic,
        "target": spec.where,
        "at": instant(result.at_ms),
        **counts_of(findings),
        "records": result.records,
        "keys": result.rows,
        "not_recomputed": [],
        "bounds": {},
        "scope": {},
        "partitions": [
            {
                "partition": number,
                "from_offset": reach.low[number],
                "reached_offset": reach.read[number],
                "settled_offset": reach.read[number],
            }
            for number in sorted(reach.read)
        ],
        "seconds": round(result.took_s, 3),
        "by_key": rows_by_key(findings, spec.topic, personal),
    }
