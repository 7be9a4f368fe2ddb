"""Further clusters that one monitor watches: a file with a table of variables for each.

Nothing that connects to Kafka or the registry, no name and no address of workers is taken over from the first cluster:
what a table does not set has its default. Everything else (intervals, history, messages, the app) is as for the first.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Final

from streams.errors import UsageError
from streams.settings import Settings, known_variables, settings_in, without_connections

CLUSTERS_MAX: Final = 20
_NAME: Final = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
_OWN: Final = (
    "STREAMS_CLUSTER_NAME",
    "STREAMS_MONITOR_CLUSTERS",
    "STREAMS_MONITOR_SINKS",
    "STREAMS_MONITOR_WORKERS",
    "STREAMS_PROMETHEUS_LABELS",
    "STREAMS_TOPIC_PREFIX",
)


def further_clusters(settings: Settings) -> dict[str, Settings]:
    """The settings of each further cluster by its name; empty: STREAMS_MONITOR_CLUSTERS is not set.

    Raises:
        UsageError: the file cannot be read, or a table of it cannot be used; the message names both.

    """
    path = settings.streams_monitor_clusters
    if path is None:
        return {}
    found = {}
    for name, table in _tables(path).items():
        if not _NAME.match(name) or name == settings.streams_cluster_name or not isinstance(table, dict):
            raise UsageError(
                f"{path}: [{name}]: a table with a name of its own, of letters, digits, '.', '_' and '-'; "
                f"the first cluster is {settings.streams_cluster_name} (STREAMS_CLUSTER_NAME)"
            )
        found[name] = _settings(path, name, table)
    if len(found) > CLUSTERS_MAX:
        raise UsageError(f"{path} has {len(found)} clusters, and may have {CLUSTERS_MAX}")
    return found


def _tables(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"STREAMS_MONITOR_CLUSTERS: {path} cannot be read: {error}") from None


def _settings(path: Path, name: str, table: dict[str, object]) -> Settings:
    known = set(known_variables())
    for variable, value in table.items():
        is_known = (variable in known and variable != "STREAMS_CLUSTER_NAME") or variable.startswith("KAFKA_CONFIG_")
        if not is_known or not isinstance(value, str | int | float):
            raise UsageError(f"{path}: [{name}]: {variable} is no variable of a cluster")
    if "KAFKA_BOOTSTRAP_SERVERS" not in table:
        raise UsageError(f"{path}: [{name}] needs KAFKA_BOOTSTRAP_SERVERS")
    inherited = {key: value for key, value in without_connections(os.environ).items() if key.upper() not in _OWN}
    own = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in table.items()}
    defaults = {
        "STREAMS_CLUSTER_NAME": name,
        "STREAMS_MONITOR_SINKS": ",",  # nowhere
        "STREAMS_MONITOR_WORKERS": ",",
        "STREAMS_PROMETHEUS_LABELS": f"cluster={name}",
    }
    try:
        return settings_in({**inherited, **defaults, **own})
    except UsageError as error:
        raise UsageError(f"{path}: [{name}]: {error}") from None
