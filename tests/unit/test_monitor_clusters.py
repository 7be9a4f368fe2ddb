"""Several clusters in one monitor: their settings, pages, metrics, and Burrow's API."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.errors import UsageError
from streams.hosts import Hosts
from streams.monitor.clusters import further_clusters
from streams.monitor.scale import ScalePolicy
from streams.monitor.watcher import Watcher
from streams.monitor.web.app import MonitorWeb
from streams.monitor.web.clusters import ClustersWeb, merged
from streams.monitor.web.pages import of_clusters
from streams.settings import load_settings
from tests.unit.test_scale_book import asked, looks, snapshot_of


@pytest.fixture(name="file")
def fixture_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "clusters.toml"
    monkeypatch.setenv("STREAMS_MONITOR_CLUSTERS", str(path))
    return path


def test_a_further_cluster_has_no_connection_of_the_first(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    secret = file.parent / "secret"
    secret.write_text("of the second")
    for name, value in {
        "KAFKA_BOOTSTRAP_SERVERS": "first:9092",
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_MECHANISM": "PLAIN",
        "KAFKA_SASL_USERNAME": "me",
        "KAFKA_SASL_PASSWORD": "of the first",
        "SCHEMA_REGISTRY_USERNAME": "me",
        "KAFKA_CONFIG_CLIENT_RACK": "r1",
        "SCHEMA_REGISTRY_PASSWORD": "of the first",
        "STREAMS_MONITOR_INTERVAL_S": "7",
    }.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    file.write_text(
        f"""
        [west]
        KAFKA_BOOTSTRAP_SERVERS = "west:9092"
        KAFKA_SECURITY_PROTOCOL = "SASL_PLAINTEXT"
        KAFKA_SASL_MECHANISM = "PLAIN"
        KAFKA_SASL_USERNAME = "me"
        KAFKA_SASL_PASSWORD_FILE = "{secret}"
        STREAMS_MONITOR_GROUPS_DENY = "test-*"
        [south]
        KAFKA_BOOTSTRAP_SERVERS = "south:9092"
        """
    )
    found = further_clusters(load_settings())

    assert ["west", "south"] == list(found)
    west, south = found.values()
    assert ("west:9092", "west", "of the second") == (
        west.kafka_bootstrap_servers, west.streams_cluster_name, west.secret("KAFKA_SASL_PASSWORD")
    )  # fmt: skip
    assert ("test-*", "console-consumer-*") == (west.streams_monitor_groups_deny, south.streams_monitor_groups_deny)
    assert (None, None, {}) == (
        south.secret("KAFKA_SASL_PASSWORD"), south.secret("SCHEMA_REGISTRY_PASSWORD"), south.kafka_options("C")
    )  # fmt: skip
    assert (7.0, "cluster=south") == (south.streams_monitor_interval_s, south.streams_prometheus_labels)
    assert before == dict(os.environ)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[local]\nKAFKA_BOOTSTRAP_SERVERS='a'", "a name of its own"),
        ("['a/b']\nKAFKA_BOOTSTRAP_SERVERS='a'", "a name of its own"),
        ("[west]\nSTREAMS_SILENT_S=5", "needs KAFKA_BOOTSTRAP_SERVERS"),
        ("[west]\nKAFKA_BOOTSTRAP='a'", "KAFKA_BOOTSTRAP is no variable"),
        ("[west]\nKAFKA_BOOTSTRAP_SERVERS='a'\nSTREAMS_SILENT_S=-1", r"\[west\]: STREAMS_SILENT_S"),
        ("[west", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        further_clusters(load_settings())


def test_families_of_several_clusters_are_told_once_and_samples_have_their_cluster() -> None:
    text = b'# HELP a what\n# TYPE a gauge\na{group="x y{"} 1\n# HELP b_total that\n# TYPE b_total counter\nb_total 2\n'
    found = merged({"east": text, "west": text}).decode()

    families = list(text_string_to_metric_families(found))
    assert ["a", "b"] == [family.name for family in families]
    samples = [(one.name, one.labels) for family in families for one in family.samples]
    assert [
        ("a", {"cluster": "east", "group": "x y{"}), ("a", {"cluster": "west", "group": "x y{"}),
        ("b_total", {"cluster": "east"}), ("b_total", {"cluster": "west"}),
    ] == samples  # fmt: skip


@pytest.fixture(name="both")
def fixture_both(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClustersWeb]:
    monkeypatch.setenv("STREAMS_MONITOR_WORKERS", "")
    webs, watchers = {}, []
    for name, base in (("east", ""), ("west", "/clusters/west")):
        watcher = Watcher(load_settings(kafka_bootstrap_servers="127.0.0.1:1", streams_cluster_name=name), ())
        watchers.append(watcher)
        webs[name] = MonitorWeb(
            watcher,
            bootstrap_servers=f"{name}:9092",
            hosts=Hosts("127.0.0.1", frozenset()),
            scale=ScalePolicy(),
            base=base,
            clusters=of_clusters(["east", "west"]),
        )
        snapshot = snapshot_of(looks()[-1])
        watcher.latest = replace(snapshot, cluster=name)
    yield ClustersWeb(webs)
    for watcher in watchers:
        watcher.stop()


def test_each_cluster_has_its_pages_and_its_api(both: ClustersWeb) -> None:
    def told(path: str) -> str:
        status, body = asked(both, path)
        assert 200 == status, (path, body)
        return bytes(body).decode()

    assert "east" == json.loads(told("/api/overview"))["cluster"]
    assert "west" == json.loads(told("/clusters/west/api/overview"))["cluster"]
    page = told("/clusters/west/")
    assert 'data-base="/clusters/west"' in page
    assert '<a href="/clusters/west/" aria-current="page">west</a>' in page
    assert '<a href="/">east</a>' in page
    assert '<a href="/clusters/west/flows">Flows</a>' in page
    assert '<a href="/clusters/west/flows" aria-current="page">Flows</a>' in told("/clusters/west/flows")
    assert 'data-base=""' in told("/")
    assert '<a href="/" aria-current="page">east</a>' in told("/flows")
    assert ["east", "west"] == json.loads(told("/v3/kafka"))["clusters"]
    assert ["west:9092"] == json.loads(told("/v3/kafka/west"))["module"]["servers"]
    assert ["g"] == json.loads(told("/v3/kafka/west/consumer"))["consumers"]
    assert "/v3/kafka/east/consumer" == json.loads(told("/v3/kafka/east/consumer"))["request"]["url"]
    assert 404 == asked(both, "/v3/kafka/north/consumer")[0]
    assert 404 == asked(both, "/clusters/north/")[0]


def test_metrics_tell_the_cluster_and_a_foreign_name_is_refused_everywhere(both: ClustersWeb) -> None:
    families = {one.name: one for one in text_string_to_metric_families(bytes(asked(both, "/metrics")[1]).decode())}
    status = families["streams_lag_group_status"]

    assert [{"cluster": "east", "group": "g"}, {"cluster": "west", "group": "g"}] == [
        one.labels for one in status.samples
    ]
    for path in ("/metrics", "/v3/kafka", "/clusters/west/", "/clusters/west/api/overview", "/v3/kafka/west", "/"):
        assert 403 == asked(both, path, host="evil.example.com")[0], path
    assert 503 == asked(both, "/readyz", host="evil.example.com")[0], "no cluster was seen by a round"
    assert b"west: no more rounds are run" in asked(both, "/readyz")[1]
    assert 503 == asked(both, "/healthz")[0], "their threads do not run"
