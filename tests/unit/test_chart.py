"""The Helm chart: what it renders is valid, has the settings that there are, and gives no privileges."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from streams.cli import app
from streams.errors import FoundSomething, StreamsError
from streams.flow.discover import pipelines
from streams.limits import GATEWAY_GRACE_S
from streams.settings import SECRETS, known_variables
from streams.sinks.spec import group_of

CHART: Final = Path(__file__).parents[2] / "deploy/helm/logistics-streams"
ALL_ON: Final[dict[str, Any]] = {
    "image": {"digest": "sha256:" + "a" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "STREAMS_IDLE_MS": 2_000,
        "STREAMS_SNAPSHOT_URL": "s3://bucket/streams",
    },
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
    "objectStore": {
        "secret": "bucket",
        "environment": {"AWS_REGION": "eu-central-1"},
        "serviceAccount": {"create": True, "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a"}},
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
            "envFrom": [{"secretRef": {"name": "lake"}}],
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
        },
        {"name": "postgres-orders", "replicas": 2, "objectStore": False},
    ],
    "reconcile": {
        "runs": [
            {"flow": "gps", "args": ["--since", "25h"]},
            {"sink": "postgres-vehicle_minutes", "schedule": "30 4 * * *"},
        ],
        "tolerations": [{"key": "streams", "operator": "Exists"}],
    },
    "jobs": [
        {
            "name": "history",
            "args": ["ingest", "file", "s3://archive/*.parquet", "--topic", "gps.positions.v1"],
            "objectStore": True,
        },
        {"name": "drift", "args": ["topics", "list"], "schedule": "0 * * * *", "retries": 0},
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

OF_OBJECT_STORES: Final = re.compile(r"(AWS|AZURE|GOOGLE)_[A-Z_]+")
"""Variables that are no settings: the libraries of object stores read them."""

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
    """Pods that run all the time, then those that end."""
    found = [template_of(one) for one in objects.values()]
    return [template["spec"] for template in found if template]


def template_of(one: dict[str, Any]) -> dict[str, Any]:
    """The pods that an object makes; empty if it makes none."""
    spec = one.get("spec", {})
    found: dict[str, Any] = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
    return found


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
        assert {name for name in names if not OF_OBJECT_STORES.fullmatch(name)} <= set(known_variables())
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
        reads_target = container["args"][:2] == ["reconcile", "--sink"]
        assert wanted.get("sink" if reads_target else container["name"], cluster) == given
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
    assert [{"secretRef": {"name": "bucket"}}, {"secretRef": {"name": "lake"}}] == container["envFrom"]
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
    labels = {name: template["metadata"]["labels"] for name, one in objects.items() if (template := template_of(one))}
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


def test_a_run_of_reconcile_is_a_bounded_job_that_differences_fail_at_once() -> None:
    objects = rendered(ALL_ON)
    assert not [name for name in rendered({}) if name.startswith("CronJob")]

    flow = objects["CronJob reconcile-flow-gps"]["spec"]
    sink = objects["CronJob reconcile-sink-postgres-vehicle-minutes"]["spec"]

    assert ("0 3 * * *", "30 4 * * *") == (flow["schedule"], sink["schedule"])
    for spec in (flow, sink):
        job = spec["jobTemplate"]["spec"]
        (container,) = job["template"]["spec"]["containers"]
        assert spec["concurrencyPolicy"] == "Forbid"
        assert not spec.get("suspend", False)
        assert job["template"]["spec"]["restartPolicy"] == "Never"
        assert job["activeDeadlineSeconds"] < 24 * 3600
        assert FoundSomething.exit_status in fails_at_once(job, container["name"])
        assert StreamsError.exit_status not in fails_at_once(job, container["name"])
        assert 2 == job["backoffLimit"]
        used_mb = int(container["args"][container["args"].index("--memory-mb") + 1])
        assert used_mb < int(container["resources"]["limits"]["memory"].removesuffix("Mi"))


def fails_at_once(job: dict[str, Any], container: str) -> set[int]:
    """Exit statuses after which a job is not tried again."""
    rules = [rule for rule in job["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    assert {container} == {rule["onExitCodes"]["containerName"] for rule in rules}
    assert {"In"} == {rule["onExitCodes"]["operator"] for rule in rules}
    return {status for rule in rules for status in rule["onExitCodes"]["values"]}


def test_a_job_without_a_schedule_is_started_by_hand_only() -> None:
    objects = rendered(ALL_ON)

    assert objects["CronJob job-history"]["spec"]["suspend"]
    hourly = objects["CronJob job-drift"]["spec"]
    assert "suspend" not in hourly
    assert ("0 * * * *", 0) == (hourly["schedule"], hourly["jobTemplate"]["spec"]["backoffLimit"])


def test_what_a_job_runs_is_a_command_with_options_that_there_are() -> None:
    for one in rendered(ALL_ON).values():
        if one["kind"] in {"CronJob", "Job"}:
            (container,) = template_of(one)["spec"]["containers"]
            parsed: Any = get_command(app).make_context("streams", list(container["args"]))
            while hasattr(parsed.command, "resolve_command"):
                words = [*parsed._protected_args, *parsed.args]
                name, command, rest = parsed.command.resolve_command(parsed, words)
                parsed = command.make_context(name, rest, parent=parsed)
            assert "streams" != parsed.info_name
            assert not parsed.args


def test_keys_of_object_stores_are_given_to_those_that_use_one() -> None:
    objects = rendered(ALL_ON)
    with_keys, with_region, with_role = set(), set(), set()
    for name, one in objects.items():
        if template := template_of(one):
            (container,) = template["spec"]["containers"]
            if {"secretRef": {"name": "bucket"}} in container.get("envFrom", []):
                with_keys.add(name)
            if {"name": "AWS_REGION", "value": "eu-central-1"} in container["env"]:
                with_region.add(name)
            if template["spec"].get("serviceAccountName") == "prod-streams-objects":
                with_role.add(name)

    assert with_keys == {
        "StatefulSet worker",
        "Deployment sink-postgres-vehicle-minutes",
        "CronJob reconcile-sink-postgres-vehicle-minutes",
        "CronJob job-history",
    }
    assert with_keys == with_region == with_role
    account = objects["ServiceAccount objects"]
    assert "arn:aws:iam::1:role/a" in account["metadata"]["annotations"].values()
    assert not account["automountServiceAccountToken"]


def test_workers_without_snapshots_are_given_no_keys_of_object_stores() -> None:
    objects = rendered({"objectStore": {"secret": "bucket", "serviceAccount": {"name": "mine"}}})
    spec = template_of(objects["StatefulSet worker"])["spec"]

    assert "envFrom" not in spec["containers"][0]
    assert "serviceAccountName" not in spec
    assert not [name for name in objects if name.startswith("ServiceAccount")]


def test_an_account_that_is_there_already_is_used_and_not_made() -> None:
    values = {
        "objectStore": {"serviceAccount": {"name": "mine"}},
        "settings": {"STREAMS_SNAPSHOT_URL": "s3://bucket/streams"},
    }
    objects = rendered(values)

    assert "mine" == template_of(objects["StatefulSet worker"])["spec"]["serviceAccountName"]
    assert not [name for name in objects if name.startswith("ServiceAccount")]


def test_numbers_of_partitions_need_not_be_the_same_for_all_flows() -> None:
    def arguments(values: dict[str, Any]) -> list[str]:
        (container,) = template_of(rendered(values)["Job topics"])["spec"]["containers"]
        return list(container["args"])

    assert ["topics", "apply", "--partitions", "12", "--replication-factor", "3"] == arguments({})
    assert ["topics", "apply", "--replication-factor", "3"] == arguments({"topics": {"partitions": None}})


@pytest.mark.parametrize("values", [{}, ALL_ON, LEAST], ids=["defaults", "all on", "least"])
def test_helms_linter_finds_nothing(values: dict[str, Any]) -> None:
    helm = pytest.importorskip("helm_python")
    report = helm.lint(CHART, values, strict=True, namespace="logistics")

    assert [] == report["errors"]
    assert {"icon is recommended"} >= {message["error"] for message in report["messages"]}


def test_names_stay_within_what_kubernetes_permits() -> None:
    long = "postgres-" + "x" * 40 + "_y"
    objects = rendered(
        {
            "sinks": [{"name": long, "autoscaling": {"enabled": True, "replicasMax": 2}}],
            "reconcile": {"runs": [{"sink": long}, {"flow": "a.b_" + "y" * 40}]},
            "jobs": [{"name": "j" * 32, "args": ["topics", "list"]}],
        }
    )

    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", one["metadata"]["name"]) for one in objects.values())
    assert 52 == max(len(one["metadata"]["name"]) for one in objects.values() if one["kind"] == "CronJob")


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
        ({"reconcile": {"runs": [{"flow": "gps", "sink": "postgres-orders"}]}}, "oneOf"),
        ({"reconcile": {"runs": [{"schedule": "0 3 * * *"}]}}, "oneOf"),
        ({"reconcile": {"memoryMb": 100}}, "minimum"),
        ({"jobs": [{"name": "a"}]}, "args"),
        ({"jobs": [{"name": "A", "args": ["topics", "list"]}]}, "pattern"),
        ({"objectStore": {"environment": {"AWS_SECRET_ACCESS_KEY": "a"}}}, "not"),
        ({"objectStore": {"environment": {"AWS_ACCESS_KEY_ID": "a"}}}, "not"),
        ({"objectStore": {"environment": {"AZURE_STORAGE_ACCOUNT_KEY": "a"}}}, "not"),
        ({"objectStore": {"environment": {"STREAMS_IDLE_MS": 1}}}, "pattern"),
    ],
)
def test_values_that_would_not_work_are_refused(values: dict[str, Any], words: str) -> None:
    errors = pytest.importorskip("helm_python.errors")
    with pytest.raises(errors.HelmError, match=words):
        rendered(values)
