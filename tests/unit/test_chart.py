"""The Helm chart: what it renders is valid, has the settings that there are, and gives no privileges."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from streams.settings import known_variables

CHART: Final = Path(__file__).parents[2] / "deploy/helm/logistics-streams"
ALL_ON: Final[dict[str, Any]] = {
    "image": {"digest": "sha256:" + "a" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "STREAMS_IDLE_MS": 2_000},
    "secrets": {"name": "streams", "keys": ["KAFKA_SASL_PASSWORD", "STREAMS_ADMIN_TOKEN"]},
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

pytestmark = pytest.mark.helm


def helm(directory: Path, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    program = shutil.which("helm")
    assert program is not None
    values_file = directory / "values.json"
    values_file.write_text(json.dumps(values))
    command = [program, "template", "prod", str(CHART), "--namespace", "logistics", "--values", str(values_file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def rendered(directory: Path, values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Objects by kind and component."""
    done = helm(directory, values)
    assert 0 == done.returncode, done.stderr
    objects = [one for one in YAML(typ="safe").load_all(done.stdout) if one]
    return {
        f"{one['kind']} {one['metadata']['labels'].get('app.kubernetes.io/component', '')}".strip(): one
        for one in objects
    }


def pods(objects: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [one["spec"]["template"]["spec"] for one in objects.values() if "template" in one["spec"]]


@pytest.mark.parametrize("values", [{}, ALL_ON, LEAST], ids=["defaults", "all on", "least"])
def test_what_is_rendered_is_valid_unprivileged_and_has_settings_that_there_are(
    values: dict[str, Any], tmp_path: Path
) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    objects = rendered(tmp_path, values)

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
        claimed = {"data"} if "worker" in container["args"] else set()
        assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed


def test_a_worker_has_a_volume_probes_and_time_to_stop(tmp_path: Path) -> None:
    objects = rendered(tmp_path, {})
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


def test_keda_asks_the_monitor_that_answers_by_that_name(tmp_path: Path) -> None:
    objects = rendered(tmp_path, ALL_ON)
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


def test_secrets_are_files_and_no_secret_is_a_value(tmp_path: Path) -> None:
    objects = rendered(tmp_path, ALL_ON)

    for pod in pods(objects):
        environment = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
        assert "/run/secrets/streams/KAFKA_SASL_PASSWORD" == environment["KAFKA_SASL_PASSWORD_FILE"]
        assert {"name": "secrets", "mountPath": "/run/secrets/streams", "readOnly": True} in (
            pod["containers"][0]["volumeMounts"]
        )


@pytest.mark.parametrize(
    "values",
    [
        {"settings": {"KAFKA_SASL_PASSWORD": "a"}},
        {"worker": {"replica": 3}},
        {"worker": {"replicas": 0}},
        {"autoscaling": {"enabled": True}, "monitor": {"enabled": False}},
    ],
    ids=["a secret as a setting", "an unknown value", "no worker", "scaling without a monitor"],
)
def test_values_that_would_not_work_are_refused(values: dict[str, Any], tmp_path: Path) -> None:
    assert 0 != helm(tmp_path, values).returncode
