"""Finds environment variables that look like settings but are not, so that misspelt ones are noticed."""

import difflib
import os
import re
from collections.abc import Mapping
from typing import Final

import structlog

from streams.kafka_options import PREFIX
from streams.settings import known_variables
from streams.text import printable

log = structlog.get_logger(__name__)

_PREFIXES: Final = ("STREAMS_", "KAFKA_", "SCHEMA_REGISTRY_")
_SIMILAR: Final = 0.8
"""How alike two names are, from 0 to 1, when one is suggested for the other."""
_KUBERNETES: Final = re.compile(r"_SERVICE_(HOST|PORT(_.+)?)$|_PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?$")
"""Kubernetes sets such variables for each service: one that is called `kafka` makes `KAFKA_PORT`."""
_KAFKA_SCRIPTS: Final = frozenset(
    f"KAFKA_{name}"
    for name in ("HOME", "OPTS", "HEAP_OPTS", "JVM_PERFORMANCE_OPTS", "GC_LOG_OPTS", "LOG4J_OPTS", "JMX_OPTS", "DEBUG")
)
"""What Kafka's own scripts read."""


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """A sentence for each variable that looks like a setting but is not; `environment`: default this process's."""
    known = known_variables()
    found = []
    for name in sorted(os.environ if environment is None else environment):
        upper = name.upper()
        if (
            not upper.startswith(_PREFIXES)
            or upper.startswith(PREFIX)
            or upper in known
            or upper in _KAFKA_SCRIPTS
            or _KUBERNETES.search(upper)
        ):
            continue
        similar = difflib.get_close_matches(upper, known, n=1, cutoff=_SIMILAR)
        meant = f"; did you mean {similar[0]}?" if similar else ""
        found.append(f"{printable(name)} is no setting and is ignored{meant}")
    return found


def warn_of_unknown_variables() -> None:
    """Log a warning for each of them: otherwise a misspelt setting would be ignored silently."""
    for sentence in unknown_variables():
        log.warning(sentence)
