"""What runs with a commit and in continuous integration is what a person runs by hand."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import jsonschema
from ruamel.yaml import YAML

ROOT: Final = Path(__file__).parents[2]
MAKEFILE: Final = (ROOT / "Makefile").read_text(encoding="utf-8")


def _yaml(*path: str) -> Any:
    return YAML(typ="safe").load(ROOT.joinpath(*path).read_text(encoding="utf-8"))


def _commands(target: str) -> list[str]:
    """What a target of the Makefile runs in .venv, without what makes it look and not change."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert found is not None
    return [
        line.strip().replace("$(BIN)/", "").replace(" .", "").replace(" --check", "") for line in found[1].splitlines()
    ]


def test_the_workflow_keeps_to_the_specification_of_workflows() -> None:
    package = find_spec("check_jsonschema")
    assert package is not None
    assert package.origin is not None
    specification = Path(package.origin).parent / "builtin_schemas" / "vendor" / "github-workflows.json"
    jsonschema.validate(_yaml(".github", "workflows", "ci.yml"), json.loads(specification.read_text(encoding="utf-8")))


def test_the_workflow_runs_what_a_person_runs() -> None:
    steps = _yaml(".github", "workflows", "ci.yml")["jobs"]["ci"]["steps"]
    assert [".ci/run"] == [step["run"] for step in steps if "run" in step]


def test_a_commit_runs_every_check() -> None:
    (repository,) = _yaml(".pre-commit-config.yaml")["repos"]
    hooks = [hook["entry"].removeprefix(".venv/bin/").replace(" --force-exclude", "") for hook in repository["hooks"]]
    assert {*_commands("check"), *_commands("schemas")} == set(hooks)
