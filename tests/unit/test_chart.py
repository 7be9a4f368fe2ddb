"""The Helm chart: what it renders is valid, has the settings that there are, and gives no privileges."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from streams.flow.discover import pipelines
from streams.limits import GATEWAY_GRACE_S
from streams.settings import SECRETS, known_variables
from streams.sinks.spec import group_of

CHART: Final = Path(__file__).parents[2] / "deploy/helm/logistics-streams"
ALL_ON: Final[dict[str, Any]] = {
    "image": {"digest": "sha256:" + "a" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "STREAMS_IDLE_MS": 2_000},
    "secrets": {
        "name": "streams",
        "keys": [
            "KAFKA_SASL_PASSWORD",
            "SCHEMA_REGISTRY_TOKEN",
            "STREAMS_ADMIN_TOKEN",
            "STREAMS_POSTGRES_URL",
            "STREAMS_REVIEW_TOKEN_READ",
        ],
    },
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}],
    "worker": {
        "storage": {"className": "fast"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "streams", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
    },
    "monitor": {"names": ["monitor.example.com"]},
    "autoscaling": {"enabled": True},
    "gateway": {
        "enabled": True,
        "credentialsSecret": "senders",
        "formats": ["acme"],
        "formatsConfigMap": "formats",
        "from": [{"podSelector": {"matchLabels": {"app": "ingress"}}}],
        "autoscaling": {"enabled": True},
        "affinity": {"podAntiAffinity": {}},
    },
    "sinks": [
        {
            "name": "postgres-vehicle_minutes",
            "autoscaling": {"enabled": True, "replicasMax": 4},
            "envFrom": [{"secretRef": {"name": "bucket"}}],
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
        },
        {"name": "postgres-orders", "replicas": 2},
    ],
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
}
LEAST: Final[dict[str, Any]] = {
    "monitor": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "topics": {"apply": False},
}
OF_OTHERS: Final = frozenset({"ScaledObject", "ServiceMonitor"})
"""Kinds whose schemas are not those of Kubernetes."""

PROBES: Final = ("startupProbe", "livenessProbe", "readinessProbe")

pytestmark = pytest.mark.helm


def rendered(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Objects by kind and name, as `helm install prod --namespace logistics` makes them."""
    helm = pytest.importorskip("helm_python")
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name="prod", namespace="logistics")
    found = [one for text in files.values() for one in YAML(typ="safe").load_all(text) if one]
    objects = {f"{one['kind']} {one['metadata']['name'].removeprefix('prod-streams-')}": one for one in found}
    assert len(objects) == len(found), "two objects have one name"
    return objects


def pods(objects: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [one["spec"]["template"]["spec"] for one in objects.values() if "template" in one["spec"]]


@pytest.mark.parametrize("values", [{}, ALL_ON, LEAST], ids=["defaults", "all on", "least"])
def test_what_is_rendered_is_valid_unprivileged_and_has_settings_that_there_are(
    values: dict[str, Any],
) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    objects = rendered(values)

    for one in objects.values():
        if one["kind"] not in OF_OTHERS:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    for pod in pods(objects):
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert ["ALL"] == container["securityContext"]["capabilities"]["drop"]
        assert {"requests", "limits"} == container["resources"].keys()
        names = [variable["name"] for variable in container["env"]]
        assert len(set(names)) == len(names)
        assert set(names) <= set(known_variables())
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claimed = {"data"} if container["args"][0] == "worker" else set()
        assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed


def test_a_worker_has_a_volume_probes_and_time_to_stop() -> None:
    objects = rendered({})
    spec = objects["StatefulSet worker"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}

    assert 3 == spec["replicas"]
    assert ["data"] == [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]]
    assert {"name": "data", "mountPath": environment["STREAMS_DATA_DIR"]} in container["volumeMounts"]
    assert "/readyz" == container["readinessProbe"]["httpGet"]["path"]
    assert "/healthz" == container["livenessProbe"]["httpGet"]["path"]
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= 30
    assert "STREAMS_GROUP_LEAVE" not in environment
    assert 1 == objects["PodDisruptionBudget worker"]["spec"]["maxUnavailable"]
    limit = container["resources"]["limits"]["memory"]
    assert int(limit.removesuffix("Mi")) > int(environment["STREAMS_MEMORY_MB_MAX"])


def test_keda_asks_the_monitor_that_answers_by_that_name() -> None:
    objects = rendered(ALL_ON)
    scaled, monitor = objects["ScaledObject worker"]["spec"], objects["Deployment monitor"]
    (container,) = monitor["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}

    assert "replicas" not in objects["StatefulSet worker"]["spec"]
    assert objects["StatefulSet worker"]["metadata"]["name"] == scaled["scaleTargetRef"]["name"]
    urls = [trigger["metadata"]["url"] for trigger in scaled["triggers"]]
    assert [f"/scale/streams.{name}" for name in ("gps", "orders", "dispatch", "tracking")] == [
        url.partition(":8080")[2] for url in urls
    ]
    assert {url.removeprefix("http://").partition(":")[0] for url in urls} <= set(
        environment["STREAMS_WEB_NAMES"].split(",")
    )
    assert {"AverageValue"} == {trigger["metricType"] for trigger in scaled["triggers"]}
    assert str(scaled["maxReplicaCount"]) == environment["STREAMS_SCALE_WORKERS_MAX"]
    worker = f"http://{objects['Service worker']['metadata']['name']}:6066"
    assert worker == environment["STREAMS_MONITOR_WORKERS"]


def test_a_pod_is_given_the_secrets_that_it_needs_as_files_and_no_others() -> None:
    cluster = {"KAFKA_SASL_PASSWORD", "SCHEMA_REGISTRY_TOKEN"}
    wanted = {
        "monitor": cluster | {"STREAMS_ADMIN_TOKEN", "STREAMS_REVIEW_TOKEN_READ"},
        "sink": cluster | {"STREAMS_POSTGRES_URL"},
    }

    for pod in pods(rendered(ALL_ON)):
        (container,) = pod["containers"]
        (volume,) = [one for one in pod["volumes"] if one["name"] == "secrets"]
        given = {one["key"] for one in volume["secret"]["items"]}
        assert wanted.get(container["name"], cluster) == given
        files = {one["name"]: one["value"] for one in container["env"] if one["name"].endswith("_FILE")}
        assert {f"{name}_FILE": f"/run/secrets/streams/{name}" for name in given} == files
        assert all(one["path"] == one["key"] for one in volume["secret"]["items"])


def test_every_secret_among_the_settings_is_refused() -> None:
    for name in SECRETS:
        with pytest.raises(ValueError, match=r"settings|pattern|not"):
            rendered({"settings": {name: "a"}})


def test_the_gateway_is_behind_its_service_and_reads_credentials_that_change() -> None:
    objects = rendered(ALL_ON)
    spec = objects["Deployment gateway"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    mount = next(one for one in container["volumeMounts"] if one["name"] == "gateway")

    assert environment["STREAMS_GATEWAY_DIR"] == mount["mountPath"]
    assert "subPath" not in mount
    (service,) = objects["Service gateway"]["spec"]["ports"]
    (port,) = container["ports"]
    assert (service["name"], service["port"]) == (port["name"], port["containerPort"])
    assert str(port["containerPort"]) == container["args"][-1]
    assert {port["name"]} == {container[probe]["httpGet"]["port"] for probe in PROBES}
    drain_s = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > drain_s + GATEWAY_GRACE_S
    assert 0 == spec["strategy"]["rollingUpdate"]["maxUnavailable"]


def test_each_sink_is_a_deployment_that_is_scaled_by_the_lag_of_its_group() -> None:
    objects = rendered(ALL_ON)
    minutes = objects["Deployment sink-postgres-vehicle-minutes"]
    orders = objects["Deployment sink-postgres-orders"]
    (container,) = minutes["spec"]["template"]["spec"]["containers"]

    assert ["sink", "postgres-vehicle_minutes", "--web-port", "6080"] == container["args"]
    assert [{"secretRef": {"name": "bucket"}}] == container["envFrom"]
    assert "replicas" not in minutes["spec"]
    assert 2 == orders["spec"]["replicas"]
    (trigger,) = objects["ScaledObject sink-postgres-vehicle-minutes"]["spec"]["triggers"]
    spec = next(
        sink
        for one in pipelines("logistics.warehouse").values()
        for sink in one.sinks
        if sink.name in container["args"]
    )
    assert trigger["metadata"]["url"].endswith(f":8080/scale/{group_of(spec, '')}")
    assert "ScaledObject sink-postgres-orders" not in objects


def test_the_group_of_a_sink_has_the_deployments_prefix() -> None:
    objects = rendered({**ALL_ON, "settings": {"STREAMS_TOPIC_PREFIX": "blue."}})
    (trigger,) = objects["ScaledObject sink-postgres-vehicle-minutes"]["spec"]["triggers"]

    assert trigger["metadata"]["url"].endswith("/scale/blue.streams.sink.postgres-vehicle_minutes")


def test_the_monitor_may_say_what_any_scaled_group_may_have() -> None:
    values = {**ALL_ON, "autoscaling": {"enabled": True, "replicasMin": 3, "replicasMax": 12}}
    (container,) = rendered(values)["Deployment monitor"]["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}

    assert ("1", "12") == (environment["STREAMS_SCALE_WORKERS_MIN"], environment["STREAMS_SCALE_WORKERS_MAX"])


def test_nobody_but_the_gateways_own_peers_reaches_it_and_they_reach_nothing_else() -> None:
    objects = rendered(ALL_ON)
    own = {"podSelector": {"matchLabels": objects["NetworkPolicy prod-streams"]["spec"]["podSelector"]["matchLabels"]}}
    (inner,) = objects["NetworkPolicy prod-streams"]["spec"]["ingress"]
    (outer,) = objects["NetworkPolicy gateway"]["spec"]["ingress"]

    assert [own, *ALL_ON["networkPolicy"]["from"]] == inner["from"]
    assert [own, *ALL_ON["networkPolicy"]["from"], *ALL_ON["gateway"]["from"]] == outer["from"]
    assert {"metrics"} == {port["port"] for port in inner["ports"]}
    assert {"events"} == {port["port"] for port in outer["ports"]}


def test_selectors_find_the_pods_that_they_mean_and_every_server_is_scraped() -> None:
    objects = rendered(ALL_ON)
    running = {name: one["spec"]["template"] for name, one in objects.items() if is_running(one)}
    labels = {name: one["metadata"]["labels"] for name, one in running.items()}
    ports = {
        name: {
            port["name"] for container in one["spec"]["template"]["spec"]["containers"] for port in container["ports"]
        }
        for name, one in objects.items()
        if is_running(one)
    }

    def found(selector: dict[str, str]) -> set[str]:
        return {name for name, has in labels.items() if selector.items() <= has.items()}

    for name, one in objects.items():
        if one["kind"] in {"Deployment", "StatefulSet"}:
            assert {name} == found(one["spec"]["selector"]["matchLabels"])
        if one["kind"] == "PodDisruptionBudget":
            assert {name.partition(" ")[2]} == {
                each.partition(" ")[2] for each in found(one["spec"]["selector"]["matchLabels"])
            }
        if one["kind"] == "Service":
            assert {port["name"] for port in one["spec"]["ports"]} == set.union(
                *(ports[pod] for pod in found(one["spec"]["selector"]))
            )
        if one["kind"] == "ScaledObject":
            target = one["spec"]["scaleTargetRef"]
            assert f"{target['kind']} {target['name'].removeprefix('prod-streams-')}" in labels
    scraped = {endpoint["port"] for endpoint in objects["ServiceMonitor prod-streams"]["spec"]["endpoints"]}
    assert set.union(*ports.values()) == scraped


def is_running(one: dict[str, Any]) -> bool:
    """Whether it is pods that run all the time."""
    return one["kind"] in {"Deployment", "StatefulSet"}


@pytest.mark.parametrize("values", [{}, ALL_ON, LEAST], ids=["defaults", "all on", "least"])
def test_helms_linter_finds_nothing(values: dict[str, Any]) -> None:
    helm = pytest.importorskip("helm_python")
    report = helm.lint(CHART, values, strict=True, namespace="logistics")

    assert [] == report["errors"]
    assert {"icon is recommended"} >= {message["error"] for message in report["messages"]}


def test_names_stay_within_what_kubernetes_permits() -> None:
    long = "postgres-" + "x" * 40 + "_y"
    objects = rendered({"sinks": [{"name": long, "autoscaling": {"enabled": True, "replicasMax": 2}}]})

    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", one["metadata"]["name"]) for one in objects.values())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"worker": {"replica": 3}}, "replica"),
        ({"worker": {"replicas": 0}}, "minimum"),
        ({"autoscaling": {"enabled": True}, "monitor": {"enabled": False}}, "needs monitor.enabled"),
        (
            {
                "sinks": [{"name": "a", "autoscaling": {"enabled": True, "replicasMax": 2}}],
                "monitor": {"enabled": False},
            },
            "needs monitor.enabled",
        ),
        ({"gateway": {"enabled": True}}, "credentialsSecret"),
        ({"gateway": {"enabled": True, "credentialsSecret": "a", "formats": ["b"]}}, "formatsConfigMap"),
        ({"sinks": [{"name": "no such/name"}]}, "pattern"),
        ({"sinks": [{"replicas": 1}]}, "name"),
    ],
)
def test_values_that_would_not_work_are_refused(values: dict[str, Any], words: str) -> None:
    errors = pytest.importorskip("helm_python.errors")
    with pytest.raises(errors.HelmError, match=words):
        rendered(values)
