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
from starlette.requests import Request

from streams.deadletters.web.guard import Guard
from streams.deadletters.web.refused import Refused
from streams.deadletters.web.tokens import EVERY_RIGHT, Tokens
from streams.flow.discover import pipelines
from streams.listening import url_of
from streams.local.artifacts import load_lock
from streams.settings import load_settings
from streams.unknown_variables import unknown_variables
from streams.worker.web import Web
from tests.image.dockerfile import parsed, sources, variables

ROOT = Path(__file__).parents[2]
COMPOSE = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
IMAGE = parsed((ROOT / "Dockerfile").read_text())


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

    assert "build" in SERVICES[name] or re.fullmatch(r"[\w/-]+:v?\d+\.\d+(\.\d+)?", image)


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


def test_everything_that_the_image_copies_is_in_the_build_context() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [sources(copy) for stage in IMAGE for copy in stage.all("COPY")]

    assert ignore[0] == "*"
    assert {f"!{path}" for origin, paths, _ in copied if origin is None for path in paths} <= set(ignore)


def test_prometheus_scrapes_the_ports_that_services_open() -> None:
    jobs = YAML(typ="safe").load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]

    scraped = {
        (name, lookup["port"]) for job in jobs for lookup in job.get("dns_sd_configs", []) for name in lookup["names"]
    }
    scraped |= {
        (name, int(port))
        for job in jobs
        for static in job.get("static_configs", [])
        for name, _, port in (target.partition(":") for target in static["targets"])
    }
    opened = {(name, int(SERVICES[name]["command"][-1])) for name in OURS if "--web-port" in SERVICES[name]["command"]}
    assert opened == scraped


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


MASK = "**********"
OURS = [name for name, service in SERVICES.items() if service["image"] == "streams:local"]


def interpolated(values: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    """Values as Compose makes them of `${NAME:-default}` and `${NAME:+other}`, with the variables in `given`."""

    def value(found: re.Match[str]) -> str:
        name, mark, text = found.groups()
        return (given.get(name) or text) if mark == "-" else (text if given.get(name) else "")

    return {key: re.sub(r"\$\{(\w+):([-+])([^}]*)\}", value, each) for key, each in values.items()}


def image_environment() -> dict[str, str]:
    """What the image sets."""
    return variables(IMAGE[-1])


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_a_container_is_a_setting_and_has_a_value_that_is_one(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment = {**image_environment(), **interpolated(SERVICES[name]["environment"], {})}
    for variable in [one for one in environment if one.endswith("_FILE")]:
        (tmp_path / variable).write_text("a token of more than 16 characters")
        environment[variable] = str(tmp_path / variable)
    for variable in list(os.environ):
        if variable.upper().startswith(("KAFKA_", "STREAMS_", "SCHEMA_REGISTRY_")):
            monkeypatch.delenv(variable)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)

    assert [] == unknown_variables(environment)
    shown = load_settings().masked()
    assert {key: value or None for key, value in environment.items() if key in shown} == {
        key: None if shown[key] is None else environment[key] if shown[key] == MASK else str(shown[key])
        for key in environment
        if key in shown
    }


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_is_in_a_variable(name: str) -> None:
    environment = {**image_environment(), **SERVICES[name].get("environment", {})}

    assert [] == [key for key in environment if re.search(r"PASSWORD$|TOKEN$|SECRET$|_KEY$|JAAS", key)]


def made_token(directory: Path, given: str) -> str:
    """What `init` leaves as the token of the review page: its script, run as far as `streams topics apply`."""
    (script,) = SERVICES["init"]["command"]
    secret = directory / "admin-token"
    secret.write_text(given)
    script = script.replace("$$", "$").replace("/run/secrets/admin-token", str(secret))
    script = script.replace("/data/", f"{directory}/data-").partition("until ")[0]
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    token = directory / "data-admin-token"
    assert 0o600 == token.stat().st_mode & 0o777
    return token.read_text()


def test_the_review_page_has_a_token_that_is_made_once_or_is_given(tmp_path: Path) -> None:
    monitor, init = SERVICES["monitor"], SERVICES["init"]

    assert set(monitor["volumes"]) <= set(init["volumes"])
    assert "/data/admin-token" == monitor["environment"]["STREAMS_ADMIN_TOKEN_FILE"]
    first = made_token(tmp_path, "")
    assert len(first.strip()) >= 32
    assert first == made_token(tmp_path, "")
    assert "my own token" == made_token(tmp_path, "my own token")
    assert "my own token" == made_token(tmp_path, "")


def test_a_token_of_ones_own_is_a_file() -> None:
    (secret,) = SERVICES["init"]["secrets"]

    assert {"file": "./token"} == interpolated(COMPOSE["secrets"][secret], {"STREAMS_ADMIN_TOKEN_FILE": "./token"})
    assert {"file": "/dev/null"} == interpolated(COMPOSE["secrets"][secret], {})


@pytest.mark.parametrize(("token", "status"), [("", 403), ("a token of more than 16 characters", 401)])
def test_the_review_page_is_usable_through_the_published_port_by_the_token_only(token: str, status: int) -> None:
    """As Docker passes a request on: it comes from another address, to a server that listens on all of them."""
    guard = Guard(Tokens(((token.encode(), EVERY_RIGHT),) if token else ()), bound_to="0.0.0.0")  # noqa: S104
    headers = [(b"host", b"127.0.0.1:8080")]
    asked = {
        "type": "http", "method": "GET", "path": "/dead-letters", "query_string": b"", "headers": headers,
        "client": ("172.18.0.1", 40_000), "scheme": "http", "server": ("172.18.0.5", 8080),
    }  # fmt: skip

    with pytest.raises(Refused) as refused:
        guard.admit(Request(asked))
    assert status == refused.value.status
    if token:
        signed_in = {**asked, "headers": [*headers, (b"authorization", f"Bearer {token}".encode())]}
        assert EVERY_RIGHT == guard.admit(Request(signed_in)).rights


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"init"}))
def test_every_service_is_there_again_after_the_machine_was_started_anew(name: str) -> None:
    """A container that ended on purpose stays down; `on-failure` would leave all of them down after a reboot."""
    assert SERVICES[name]["restart"] in {"unless-stopped", "always"}


def test_nothing_outside_a_profile_waits_for_something_within_one() -> None:
    for service in SERVICES.values():
        for other in service.get("depends_on", []):
            assert set(SERVICES[other].get("profiles", [])) <= set(service.get("profiles", []))


def test_the_sinks_that_are_run_are_those_that_the_app_declares() -> None:
    running = {
        SERVICES[name]["command"][1]: SERVICES[name]
        for name in OURS
        if SERVICES[name].get("command", [""])[0] == "sink"
    }
    (app,) = {service["environment"]["STREAMS_APP"] for service in running.values()}

    assert {sink.name for pipeline in pipelines(app).values() for sink in pipeline.sinks} == set(running)
    assert app == SERVICES["init"]["environment"]["STREAMS_APP"], "nobody creates the topics of their dead letters"
    plain = pipelines("logistics")
    assert {name: one.topics() for name, one in pipelines(app).items()} == {
        name: one.topics() for name, one in plain.items()
    }


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_privileges_and_get_none(name: str) -> None:
    assert ["ALL"] == SERVICES[name]["cap_drop"]
    assert ["no-new-privileges:true"] == SERVICES[name]["security_opt"]
    assert "user" not in SERVICES[name]
    assert not SERVICES[name].get("privileged")
    assert SERVICES[name]["read_only"]
    assert ["/tmp"] == SERVICES[name]["tmpfs"]  # noqa: S108 - the container's own
    writable = {volume.rpartition(":")[2] for volume in SERVICES[name].get("volumes", [])}
    assert writable <= {image_environment()["STREAMS_DATA_DIR"]}


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


@pytest.mark.parametrize("name", [name for name in OURS if name != "init"])
def test_a_health_check_asks_the_port_that_the_command_opens(name: str) -> None:
    *_, flag, port = SERVICES[name]["command"]
    check = SERVICES[name]["healthcheck"]

    assert "--web-port" == flag
    assert re.search(rf"http://127\.0\.0\.1:{port}/(readyz|healthz)'", check["test"][-1])
    assert float(re.findall(r"timeout=(\d+)", check["test"][-1])[0]) < float(check["timeout"].removesuffix("s"))
    assert name.partition("-")[0] == SERVICES[name]["command"][0]
