"""`docs/orders-and-vehicles.md`: its example is run, and what it says of topics is what is declared."""

import re
from pathlib import Path

from logistics.flows.dispatch import DISPATCH
from logistics.flows.tracking import TRACKING

PAGE = (Path(__file__).parents[2] / "docs" / "orders-and-vehicles.md").read_text(encoding="utf-8")


def test_the_example_is_right() -> None:
    (text,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found: dict[str, object] = {}
    exec(compile(text, "docs/orders-and-vehicles.md", "exec"), found)  # noqa: S102 - the document's own test
    test = found["test_an_order_is_followed_to_its_destination"]
    assert callable(test)
    test()


def test_its_table_names_what_the_flows_write() -> None:
    rows = {one.topic for pipeline in (DISPATCH, TRACKING) for one in pipeline.row_outputs}
    assert set(re.findall(r"^\| `([a-z0-9.]+\.v1)` \|", PAGE, re.MULTILINE)) == rows
