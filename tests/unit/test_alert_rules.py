"""The alert rules: well-formed, each tested firing and silent, each with a runbook that the monitor can show."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from streams.monitor.web import runbooks

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]
GUIDES = {"dead-letters"}
"""What is worth reading without an alert."""
ALWAYS = {"Watchdog"}
"""What never ends."""
RULES = ROOT / "deploy/prometheus/rules/streams.yml"
TESTS = sorted((ROOT / "deploy/prometheus/tests").glob("*.yml"))


def alerts() -> list[dict[str, Any]]:
    groups = YAML(typ="safe").load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120, cwd=ROOT
    )


@pytest.mark.promtool
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    checked = promtool("check", "rules", RULES)

    assert 0 == checked.returncode, checked.stdout + checked.stderr


@pytest.mark.promtool
def test_every_rule_does_what_its_cases_say() -> None:
    tested = promtool("test", "rules", *TESTS)

    assert 0 == tested.returncode, tested.stdout + tested.stderr


@pytest.mark.promtool
def test_promtool_would_notice_a_rule_that_does_not_fire(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    broken = RULES.read_text().replace("streams_source_silent == 1", "streams_source_silent == 2")
    (tmp_path / "rules" / RULES.name).write_text(broken)
    cases = next(path for path in TESTS if path.name == "streams.yml")
    (tmp_path / "tests" / cases.name).write_text(cases.read_text())

    assert 0 != promtool("test", "rules", tmp_path / "tests" / cases.name).returncode


def test_each_alert_has_a_firing_and_a_silent_case() -> None:
    firing: set[str] = set()
    silent: set[str] = set()
    tests = [test for path in TESTS for test in YAML(typ="safe").load(path.read_text())["tests"]]
    for test in tests:
        for case in test.get("alert_rule_test", ()):
            (firing if case["exp_alerts"] else silent).add(case["alertname"])

    names = {rule["alert"] for rule in alerts()}
    assert (names, names - ALWAYS) == (firing, silent)


def test_each_alert_says_what_is_the_case_how_bad_it_is_and_where_to_read_on() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ({"none"} if rule["alert"] in ALWAYS else {"page", "ticket"}), rule
        assert rule["annotations"]["summary"], rule
        name = rule["annotations"]["runbook_url"].rsplit("/", 1)[1]
        link = '{{ or $externalLabels.runbooks "http://127.0.0.1:8080/runbooks" }}'
        assert f"{link}/{name}" == rule["annotations"]["runbook_url"]
        page = runbooks.runbook_page(name)
        assert page is not None, f"no runbook {name}"
        assert f"<h1>{rule['alert']}</h1>" in page


def test_each_runbook_belongs_to_an_alert_and_has_its_four_parts() -> None:
    used = {rule["annotations"]["runbook_url"].rsplit("/", 1)[1] for rule in alerts()}
    names = set(runbooks.runbook_names())

    assert used == names - GUIDES
    for name in used:
        text = (runbooks.runbooks_directory() / f"{name}.md").read_text()
        parts = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
        assert ["What it means", "How to see it", "What to do", "How to know that it is over"] == parts, name


def test_the_page_links_runbooks_that_are_there() -> None:
    script = (ROOT / "streams/monitor/static/monitor.js").read_text()
    line = next(line for line in script.splitlines() if "const RUNBOOKS" in line)
    linked = {part.split('"')[1] for part in line.split(": ")[1:]}

    assert {"no-progress", "lag-growing"} <= linked <= set(runbooks.runbook_names())


@pytest.mark.parametrize("name", ["../README", "README", "no-such", "..%2Fetc", ""])
def test_only_runbooks_are_shown(name: str) -> None:
    assert runbooks.runbook_page(name) is None
