"""Every code block of the pages: commands and options exist, Python resolves, data is well-formed, guides are run."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

import streams
from streams import Stream
from streams.testing import FlowDriver
from tests.documents import PAGES, ROOT, Block, blocks, command_lines, command_of, inline_commands, options_of

pytestmark = pytest.mark.thorough

COMMANDS: Final = ("", "sh", "console")
OUTPUT: Final = ("streams demo   1:14",)
"""What a program prints, and looks like a command."""
RUN_BY: Final = {
    "docs/add-a-stream.md": "tests/integration/test_add_a_stream.py",
    "docs/evolve-a-schema.md": "tests/integration/test_evolve_a_schema.py",
    "docs/fleet-page.md": "tests/unit/test_page_blocks.py",
    "docs/flows.md": "tests/unit/test_page_blocks.py",
    "docs/gateway.md": "tests/integration/test_gateway.py",
    "docs/mqtt.md": "tests/integration/test_bridge.py",
    "docs/orders-and-vehicles.md": "tests/unit/test_orders_page.py",
    "docs/query-the-tables.md": "tests/unit/test_page_blocks.py",
    "docs/runbooks/dead-letters.md": "tests/unit/test_page_blocks.py",
    "docs/sinks.md": "tests/integration/test_sink.py",
    "docs/tutorial.md": "tests/integration/test_new_project.py",
    "docs/write-a-join.md": "tests/unit/test_write_a_join.py",
    "docs/write-an-operator.md": "tests/integration/test_write_an_operator.py",
    "README.md": "tests/unit/test_documents.py",
}
"""Pages whose blocks a test takes from the page and runs, or compares with what runs."""
ASSUMED: Final = {
    "docs/flows.md": {"FIELDS", "VehicleState", "Moves", "SpeedAlarms", "is_moving", "in_miles", "positions", "flow"},
    "docs/sinks.md": {"flow", "positions", "VehicleState", "VehicleMinute"},
    "README.md": {"VehicleState", "VehicleMinute", "VehicleTrip"},
}
"""Names that a block takes from the reader's own code."""
METHODS: Final = {
    name: inspect.signature(method)
    for owner in (Stream, FlowDriver)
    for name, method in inspect.getmembers(owner, inspect.isfunction)
    if not name.startswith("_")
}


def _place(block: Block) -> str:
    return block.place


def _all(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


PYTHON: Final = _all("python")


def test_every_command_in_a_block_is_one_with_these_options() -> None:
    wrong = []
    count = 0
    for block in _all(*COMMANDS):
        text = "\n".join(line for line in block.text.splitlines() if not line.startswith(OUTPUT))
        for words in command_lines(Block(block.page, block.line, block.language, text)):
            count += 1
            wrong += [f"{block.place}: {fault}" for fault in _refused(words)]
    assert [] == wrong
    assert count > 50


@pytest.mark.parametrize(
    "line", ["streams worker --no-such 3", "streams topics grew a.v1", "streams dlq show", "streams lag --for x"]
)
def test_what_the_command_line_would_refuse_is_found(line: str) -> None:
    (words,) = command_lines(Block(ROOT / "README.md", 1, "", line))
    assert 1 == len(list(_refused(words)))


def _refused(words: list[str]) -> Iterator[str]:
    """What the command line says of words, without running anything."""
    try:
        command, rest = command_of(words)
        command.make_context(command.name, rest)
    except LookupError as error:
        yield str(error)
    except Exception as error:  # noqa: BLE001 - of many kinds; each is a finding
        if type(error).__name__ != "Exit":
            yield f"streams {' '.join(words)}: {getattr(error, 'message', error)}"


def test_every_command_in_a_sentence_is_one_with_these_options() -> None:
    wrong = []
    for page in PAGES:
        if page.name == "CHANGELOG.md":  # of versions that were
            continue
        for words in inline_commands(page):
            place = f"{page.relative_to(ROOT)}: streams {' '.join(words)}"
            try:
                command, rest = command_of(words)
            except LookupError as error:
                if not words[0].isupper() and words[0] != "...":
                    wrong.append(f"{place}: {error}")
                continue
            given = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
            wrong += [f"{place}: no option {one}" for one in sorted(given - options_of(command))]
    assert [] == wrong


@pytest.mark.parametrize("block", PYTHON, ids=_place)
def test_every_python_block_compiles_and_its_imports_and_arguments_exist(block: Block) -> None:
    tree = ast.parse(block.text, block.place)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "streams":
            module = importlib.import_module(node.module)
            for one in node.names:
                names[one.asname or one.name] = getattr(module, one.name)
    public = {name: getattr(streams, name) for name in streams.__all__} | names
    wrong = [fault for call in ast.walk(tree) if isinstance(call, ast.Call) for fault in _arguments(call, public)]
    assert [] == wrong


def _arguments(call: ast.Call, names: dict[str, Any]) -> Iterator[str]:
    """Keywords of a call that what is called does not have, where it is ours."""
    match call.func:
        case ast.Name(id=name) if callable(names.get(name)):
            signature = inspect.signature(names[name])
        case ast.Attribute(attr=name) if name in METHODS:
            signature = METHODS[name]
        case _:
            return
    parameters = signature.parameters.values()
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
        return
    for keyword in call.keywords:
        if keyword.arg is not None and keyword.arg not in signature.parameters:
            yield f"{name}({keyword.arg}=): there is no such argument"


def test_every_name_of_a_python_block_is_defined_in_the_page() -> None:
    wrong = []
    for page in {block.page for block in PYTHON}:
        name = str(page.relative_to(ROOT))
        text = "\n".join(block.text for block in PYTHON if block.page == page)
        told = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--output-format", "json", "-"],
            input=text, capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        unknown = {re.findall(r"`(\w+)`", one["message"])[0] for one in json.loads(told.stdout)}
        wrong += [f"{name}: {one}" for one in sorted(unknown - ASSUMED.get(name, set()) - {*streams.__all__})]
    assert [] == wrong


@pytest.mark.parametrize("block", _all("json", "toml", "yaml"), ids=_place)
def test_every_block_of_data_is_well_formed(block: Block) -> None:
    match block.language:
        case "toml":
            tomllib.loads(block.text)
        case "yaml":
            YAML(typ="safe").load(block.text)
        case _:
            _json(block.text)


def _json(text: str) -> None:
    """A document, a document a line, or members of one."""
    try:
        json.loads(text)
    except json.JSONDecodeError:
        try:
            json.loads(f"{{{text.rstrip().rstrip(',')}}}")
        except json.JSONDecodeError:
            for line in text.splitlines():
                json.loads(line.rstrip(","))


@pytest.mark.parametrize(("page", "test"), RUN_BY.items())
def test_a_guide_is_run_by_its_test(page: str, test: str) -> None:
    source = (ROOT / test).read_text(encoding="utf-8")
    assert Path(page).name in source
