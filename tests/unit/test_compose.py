"""There is no Docker engine where these tests run: what can be checked without one is checked."""

import asyncio
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prometheus_client import CollectorRegistry
from ruamel.yaml import YAML

from streams.listening import url_of
from streams.local.artifacts import load_lock
from streams.settings import load_settings
from streams.unknown_variables import unknown_variables
from streams.worker.web import Web

ROOT = Path(__file__).parents[2]
COMPOSE = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_compose_file_keeps_to_the_compose_specification() -> None:
    package = find_spec("check_jsonschema")
    assert package is not None
    assert package.origin is not None
    specification = Path(package.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"

    jsonschema.validate(COMPOSE, json.loads(specification.read_text()))


def test_kafka_and_registry_have_the_versions_of_the_local_stack() -> None:
    lock = load_lock()

    assert SERVICES["kafka"]["image"] == f"apache/kafka:{lock.kafka.version}"
    assert SERVICES["registry"]["image"] == f"apicurio/apicurio-registry:{lock.registry.version}"


@pytest.mark.parametrize("name", SERVICES)
def test_published_ports_are_bound_to_loopback(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_or_built_here(name: str) -> None:
    image = SERVICES[name]["image"]

    assert "build" in SERVICES[name] or re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+", image)


def test_dependencies_and_volumes_exist() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", [])) <= set(SERVICES)
        volumes = interpolated({str(place): one for place, one in enumerate(service.get("volumes", []))}, {}).values()
        named = {volume.split(":")[0] for volume in volumes if not volume.startswith(("/", "."))}
        mounted = {ROOT / volume.split(":")[0] for volume in volumes if volume.startswith(".")}
        assert named <= set(COMPOSE["volumes"])
        assert all(path.exists() for path in mounted)


def test_the_worker_may_finish_its_commit_and_is_checked_for_readiness() -> None:
    worker = SERVICES["worker"]

    assert int(worker["stop_grace_period"].removesuffix("s")) > 10
    assert "http://127.0.0.1:6066/readyz" in worker["healthcheck"]["test"][-1]
    assert "/data" in worker["volumes"]
    compile(worker["healthcheck"]["test"][-1], "healthcheck", "exec")


def test_containers_reach_each_other_by_service_name() -> None:
    environment = SERVICES["worker"]["environment"]
    advertised = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]

    assert f"INTERNAL://{environment['KAFKA_BOOTSTRAP_SERVERS']}" in advertised
    assert environment["SCHEMA_REGISTRY_URL"].startswith("http://registry:8080/")


def test_the_image_runs_as_an_unprivileged_user_and_installs_from_the_hashed_lock() -> None:
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)

    assert [user for user in users if user not in {"0", "root"}] == users != []
    assert "--require-hashes --only-binary=:all: -r requirements/runtime.lock" in DOCKERFILE


def test_everything_that_the_image_copies_is_in_the_build_context() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [source for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]]

    assert ignore[0] == "*"
    assert {f"!{source}" for source in sources} <= set(ignore)


def test_prometheus_scrapes_the_ports_of_the_worker_and_the_monitor() -> None:
    worker, monitor = YAML(typ="safe").load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]

    assert [{"names": ["worker"], "type": "A", "port": 6066}] == worker["dns_sd_configs"]
    assert [{"targets": ["monitor:8080"]}] == monitor["static_configs"]
    assert ["monitor", "--web-port", "8080"] == SERVICES["monitor"]["command"]


ALERTMANAGER = YAML(typ="safe").load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text())
RULES = YAML(typ="safe").load((ROOT / "deploy/prometheus/rules/streams.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]


def matches(matchers: list[str], labels: dict[str, str]) -> bool:
    """Whether an alert with these labels is meant, as Alertmanager reads `name="value"` and `name=~"pattern"`."""
    for matcher in matchers:
        name, operator, value = re.fullmatch(r'(\w+)(=~?)"(.*)"', matcher).groups()  # type: ignore[union-attr]
        found = labels.get(name, "")
        if not (re.fullmatch(value, found) if operator == "=~" else found == value):
            return False
    return True


def test_prometheus_sends_alerts_to_the_alertmanager_of_the_stack() -> None:
    prometheus = YAML(typ="safe").load((ROOT / "deploy/prometheus/prometheus.yml").read_text())

    (alertmanager,) = prometheus["alerting"]["alertmanagers"]
    assert [{"targets": ["alertmanager:9093"]}] == alertmanager["static_configs"]
    assert "127.0.0.1:9093:9093" in SERVICES["alertmanager"]["ports"]
    assert "${RUNBOOKS_URL}" == prometheus["global"]["external_labels"]["runbooks"]
    assert "RUNBOOKS_URL" in SERVICES["prometheus"]["environment"]


def test_every_alert_goes_to_the_receiver_of_its_severity_and_the_watchdog_to_its_own() -> None:
    receivers = {one["name"] for one in ALERTMANAGER["receivers"]}
    for rule in ALERTS:
        labels = {"alertname": rule["alert"], **rule["labels"]}
        routes = ALERTMANAGER["route"]["routes"]
        taken = next(route["receiver"] for route in routes if matches(route["matchers"], labels))
        assert taken in receivers
        assert ("watchdog" if rule["alert"] == "Watchdog" else rule["labels"]["severity"]) == taken


def test_what_inhibits_names_alerts_that_there_are_and_none_that_inhibits_itself() -> None:
    alerts = [{"alertname": rule["alert"], **rule["labels"]} for rule in ALERTS]
    for rule in ALERTMANAGER["inhibit_rules"]:
        sources = [one for one in alerts if matches(rule["source_matchers"], one)]
        targets = [one for one in alerts if matches(rule["target_matchers"], one)]
        assert sources, rule
        assert targets, rule
        assert not [one for one in sources if one in targets], rule


def test_grafana_is_given_its_datasource_and_dashboards() -> None:
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    provider = YAML(typ="safe").load((ROOT / "deploy/grafana/dashboards.yml").read_text())["providers"][0]
    source = YAML(typ="safe").load((ROOT / "deploy/grafana/datasources.yml").read_text())["datasources"][0]

    assert provider["options"]["path"] == mounts["./deploy/grafana/dashboards"]
    for path in (ROOT / "deploy/grafana/dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {source["uid"]}


DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_have_a_unit_and_say_what_they_show_and_their_queries_use_variables_that_there_are(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    names = {one["name"] for one in dashboard["templating"]["list"]}
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]

    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in dashboard["panels"])
    assert names | {"__rate_interval"} == {name for query in queries for name in re.findall(r"\$(\w+)", query)}
    assert not [query for query in queries if re.search(r"rate\([^)]*\[\d", query)], "$__rate_interval fits any range"
    assert len({panel["title"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_alerts_are_annotations_and_panels_do_not_overlap(path: Path) -> None:
    dashboard = json.loads(path.read_text())

    severities = [re.findall(r'severity="(\w+)"', one["expr"]) for one in dashboard["annotations"]["list"]]
    assert [["page"], ["ticket"]] == severities
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


OURS = [name for name, service in SERVICES.items() if service["image"] == "streams:local"]


def interpolated(values: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    """Values as Compose makes them of `${NAME:-default}` and `${NAME:+other}`, with the variables in `given`."""

    def value(found: re.Match[str]) -> str:
        name, mark, text = found.groups()
        return (given.get(name) or text) if mark == "-" else (text if given.get(name) else "")

    return {key: re.sub(r"\$\{(\w+):([-+])([^}]*)\}", value, each) for key, each in values.items()}


def image_environment() -> dict[str, str]:
    """What the image sets."""
    blocks = re.findall(r"^ENV ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    return dict(pair.split("=", 1) for block in blocks for pair in block.replace("\\\n", " ").split())


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_a_container_is_a_setting_and_has_a_value_that_is_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**image_environment(), **interpolated(SERVICES[name]["environment"], {})}
    for variable in list(os.environ):
        if variable.upper().startswith(("KAFKA_", "STREAMS_", "SCHEMA_REGISTRY_")):
            monkeypatch.delenv(variable)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)

    assert [] == unknown_variables(environment)
    shown = load_settings().masked()
    assert {key: value or None for key, value in environment.items() if key in shown} == {
        key: None if shown[key] is None else str(shown[key]) for key in environment if key in shown
    }


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_is_in_a_variable(name: str) -> None:
    environment = {**image_environment(), **SERVICES[name].get("environment", {})}

    assert [] == [key for key in environment if re.search(r"PASSWORD$|TOKEN$|SECRET$|_KEY$|JAAS", key)]


def test_the_monitors_token_is_a_file_if_there_is_one() -> None:
    monitor, given = SERVICES["monitor"], {"STREAMS_ADMIN_TOKEN_FILE": "./token"}
    (secret,) = monitor["secrets"]

    assert f"/run/secrets/{secret}" == interpolated(monitor["environment"], given)["STREAMS_ADMIN_TOKEN_FILE"]
    assert {"file": "./token"} == interpolated(COMPOSE["secrets"][secret], given)
    assert "" == interpolated(monitor["environment"], {})["STREAMS_ADMIN_TOKEN_FILE"]
    assert {"file": "/dev/null"} == interpolated(COMPOSE["secrets"][secret], {})


def test_the_base_image_names_its_release() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)

    assert bases != []
    assert all(re.fullmatch(r"python:3\.\d+(\.\d+)?-slim-[a-z]+", base) for base in bases)


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_privileges_and_get_none(name: str) -> None:
    assert ["ALL"] == SERVICES[name]["cap_drop"]
    assert ["no-new-privileges:true"] == SERVICES[name]["security_opt"]
    assert "user" not in SERVICES[name]
    assert not SERVICES[name].get("privileged")


@pytest.mark.parametrize("reason", [None, "restoring"])
def test_the_workers_health_check_passes_when_it_is_ready_and_fails_when_it_is_not(reason: str | None) -> None:
    async def check() -> int:
        web = Web(CollectorRegistry(), lambda: reason, host="127.0.0.1", port=0)
        await web.start()
        program = SERVICES["worker"]["healthcheck"]["test"][-1].replace("http://127.0.0.1:6066", url_of(web._socket))
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            return await process.wait()
        finally:
            await web.stop()

    assert (0 if reason is None else 1) == asyncio.run(check())


@pytest.mark.parametrize("name", ["worker", "monitor"])
def test_a_health_check_asks_the_port_that_the_command_opens(name: str) -> None:
    _, flag, port = SERVICES[name]["command"]
    check = SERVICES[name]["healthcheck"]

    assert "--web-port" == flag
    assert re.search(rf"http://127\.0\.0\.1:{port}/(readyz|healthz)'", check["test"][-1])
    assert float(re.findall(r"timeout=(\d+)", check["test"][-1])[0]) < float(check["timeout"].removesuffix("s"))
    assert name in SERVICES[name]["command"]
