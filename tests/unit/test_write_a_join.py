"""`docs/write-a-join.md`, followed: the flow that it declares, under the test that it shows."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parents[2] / "docs" / "write-a-join.md").read_text(encoding="utf-8")
DECLARATION, TEST = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)

_TIME = {"type": "long", "logicalType": "timestamp-millis"}
_EVENT = {"event_id": "string", "van_id": "string", "sequence": "long", "event_time": _TIME}
SCHEMAS = {
    "scans.v1": {**_EVENT, "parcel_id": "string"},
    "climate.v1": {**_EVENT, "celsius": ["null", "double"]},
    "parcels.checked.v1": {
        "van_id": "string", "parcel_id": ["null", "string"], "scanned_at": _TIME, "celsius": ["null", "double"],
    },
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "parcels.py").write_text(DECLARATION, encoding="utf-8")
    for topic, fields in SCHEMAS.items():
        place = tmp_path / "schemas" / f"{topic}-value"
        place.mkdir(parents=True)
        name = "".join(part.capitalize() for part in topic.split(".")[:-1])
        listed = [{"name": field, "type": kind} for field, kind in fields.items()]
        schema = {"type": "record", "name": name, "namespace": "yard", "fields": listed}
        (place / "1.avsc").write_text(json.dumps(schema), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "parcels", raising=False)
    return tmp_path


def test_the_guide_is_right(project: Path) -> None:
    importlib.invalidate_caches()
    found: dict[str, object] = {}
    exec(compile(TEST, "docs/write-a-join.md", "exec"), found)  # noqa: S102 - the document's own test
    name, test = next((name, each) for name, each in found.items() if name.startswith("test_"))
    assert callable(test), name
    test()
    sys.modules.pop("parcels", None)
