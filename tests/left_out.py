"""Tests that need a tool which a machine may lack: left out and said so by name, or failed where they must not be."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from streams.avro.native import choose

REQUIRE_VARIABLE: Final = "STREAMS_TESTS_LEAVE_NOTHING_OUT"
"""Set where a left-out test is a failure (.ci/run)."""
CHROMIUMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """The browser, if there is one."""
    return next((path for name in CHROMIUMS if (path := shutil.which(name))), None)


def prometheus() -> str | None:
    """Prometheus, if it and its promtool are there."""
    return shutil.which("prometheus") if shutil.which("promtool") else None


def native_decoder() -> object | None:
    """The native library, if it can be used."""
    return choose("auto").native


def cargo() -> str | None:
    """What `make setup` builds the native library with, if it is there."""
    return shutil.which("cargo")


def helm() -> object | None:
    """Helm, as a library of Python, if it is there; one whose installation was cut off is not."""
    is_whole = (Path(sys.executable).parent.parent / ".deploy-tools").exists()
    return find_spec("helm_python") if is_whole else None


def hadolint() -> str | None:
    """The linter of Dockerfiles, if it is there."""
    beside = Path(sys.executable).parent / "hadolint"
    return str(beside) if beside.exists() else shutil.which("hadolint")


def weed() -> str | None:
    """SeaweedFS, the S3 server, if it is there."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def mosquitto() -> str | None:
    """The MQTT broker, if it and what publishes to it are there; Debian has the broker where only root looks."""
    if shutil.which("mosquitto_pub") is None:
        return None
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


NEEDS: Final = {
    "helm": (helm, "no Helm (make deploy-tools)"),
    "hadolint": (hadolint, "no hadolint (make deploy-tools)"),
    "s3": (weed, "no S3 server (make s3-server)"),
    "chromium": (chromium, "no Chromium (Debian: apt-get install chromium)"),
    "mosquitto": (mosquitto, "no mosquitto (Debian: apt-get install mosquitto mosquitto-clients)"),
    "promtool": (prometheus, "no prometheus and promtool (Debian: apt-get install prometheus)"),
    "native": (native_decoder, "no native decoder (make setup builds it where cargo is)"),
}
MAY_LACK: Final = {"native": cargo, "helm": helm, "hadolint": hadolint, "s3": weed}
"""Where this finds nothing, what needs the tool is left out even where nothing else may be."""


def mark(items: list[pytest.Item]) -> None:
    """Have the tests left out whose tool is missing; where nothing may be left out, have them fail."""
    for name, (find, why) in NEEDS.items():
        if find() is not None:
            continue
        for item in items:
            if item.get_closest_marker(name) is None:
                continue
            if os.environ.get(REQUIRE_VARIABLE) and (name not in MAY_LACK or MAY_LACK[name]() is not None):
                raise pytest.UsageError(f"{item.nodeid} must not be left out ({REQUIRE_VARIABLE}), but there is {why}")
            item.add_marker(pytest.mark.skip(reason=f"{LEFT_OUT}: {why}"))


LEFT_OUT: Final = "left out"


def told(reports: list[pytest.TestReport]) -> list[str]:
    """A line for each test that was left out."""
    lines = []
    for report in reports:
        longrepr = report.longrepr
        if isinstance(longrepr, tuple) and LEFT_OUT in longrepr[2]:
            lines.append(f"{report.nodeid}  {longrepr[2].removeprefix('Skipped: ')}")
    return lines
