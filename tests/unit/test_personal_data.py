"""Personal data in what people see: no value of a field that is marked is printed, logged or quoted in a reason."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from logistics.flows.gps import GPS
from streams.cli import app
from streams.deadletters.letter.foreign import is_coordinate
from streams.deadletters.letter.letter import Letter, NotARepair, repaired
from streams.engine.effects import Effects, PartitionEffects
from streams.errors import StreamsError
from streams.flow.declaration import Pipeline
from streams.flow.decoding import decoder_of
from streams.gateway.rows import Asked, RowReader
from streams.ingest.fields import fields_of
from streams.ingest.filling import listed
from streams.ingest.quoting import outlined
from streams.masking import PERSONAL_MASK
from streams.schemas.catalog import Catalog, SchemaVersion, SubjectSettings
from streams.schemas.personal import personal_of, with_personal
from streams.settings import load_settings
from streams.text import far_ahead
from streams.tracebacks import formatted, words_of
from streams.worker.metrics import WorkerMetrics
from streams.worker.misrouted import MisroutedNews, MisroutedWatch
from streams.worker.quarantined import QuarantineNews

MARKED = "anna-marked-7"
PRIVATE = replace(GPS, personal=frozenset({"device_id", "latitude"}))


def catalog(*fields: dict[str, Any], personal: frozenset[str] = frozenset()) -> Catalog:
    versions = tuple(
        SchemaVersion("s-value", number, Path(), "", {"type": "record", "name": "R", "fields": [field]})
        for number, field in enumerate(fields, 1)
    )
    return Catalog({"s-value": versions}, settings={"s-value": SubjectSettings(personal=personal)})


def test_a_field_is_personal_if_any_version_or_the_settings_of_its_subject_say_so() -> None:
    found = catalog(
        {"name": "old", "type": "string", "pii": True},
        {
            "name": "new",
            "type": {"type": "record", "name": "I", "fields": [{"name": "deep", "type": "int", "pii": True}]},
        },
        personal=frozenset({"beside"}),
    )
    assert personal_of(found, "s-value") == {"old", "deep", "beside"}
    assert personal_of(found, "unknown-value") == frozenset()


def test_the_shipped_flows_know_their_personal_fields() -> None:
    (gps,) = with_personal([GPS])
    assert gps.personal == {"latitude", "longitude"}
    assert not gps.masks_keys
    assert PRIVATE.masks_keys


def test_keys_that_are_personal_are_counted_and_not_named_in_the_log() -> None:
    metrics = WorkerMetrics()
    effects = Effects(0, 1, [PartitionEffects(0, misrouted=1, misrouted_keys=(MARKED.encode(),))])
    news = MisroutedNews()
    news.add(effects)
    for flow, is_named in ((GPS, True), (PRIVATE, False)):
        quarantined, misrouted = QuarantineNews(flow, metrics), MisroutedWatch(flow, 3, metrics)
        with capture_logs() as logged:
            quarantined.tell([MARKED.encode()])
            quarantined.tell([])
            misrouted.tell(news, 1)
        assert len(logged) == 3
        assert (MARKED in str(logged)) is is_named, logged
    assert [line["begun"] for line in logged[:2]] == [1, 0]


def test_words_of_a_users_repair_are_told_apart_from_what_happened() -> None:
    letter = Letter("1" * 24, "t", 0, 0, 0, "s", b"k", b"v", [], "invalid", "", 1, None, 0)

    def raising(_: Letter) -> bytes:
        raise ValueError(f"no such place: {MARKED}")

    with pytest.raises(NotARepair) as caught:
        repaired(letter, raising)
    assert MARKED in str(caught.value)
    assert caught.value.what == "it raised ValueError"


def test_of_a_foreign_envelope_only_names_and_numbers_are_coordinates() -> None:
    shown = ("__connect.errors.topic", "kafka_dlt-original-offset", "__streams.errors.exception", "dlq.reason")
    assert all(map(is_coordinate, shown))
    words = ("__connect.errors.exception.message", "kafka_dlt-exception-stacktrace", "__streams.errors.message")
    assert not any(map(is_coordinate, words))


def fail_of_a_value(marked: str) -> None:
    try:
        try:
            float(marked)
        except ValueError as error:
            raise KeyError(marked) from error
    except KeyError:
        raise ExceptionGroup(marked, [TypeError(marked)]) from None


@pytest.mark.parametrize("raises", [float, {}.__getitem__, fail_of_a_value])
def test_a_traceback_says_where_and_what_but_no_value(raises: Callable[[str], object]) -> None:
    with pytest.raises((ValueError, KeyError, ExceptionGroup)) as caught:
        raises(MARKED)
    found = formatted(caught.value)
    assert MARKED not in found
    assert "test_personal_data.py" in found
    assert PERSONAL_MASK in found


def test_what_tells_no_value_is_said_in_full() -> None:
    chained = ValueError("x")
    chained.__cause__ = OSError(28, "No space left on device")
    assert "No space left on device\n\nThe above exception was the direct cause" in formatted(chained)
    assert "ValueError: •••" in formatted(chained)
    assert words_of(StreamsError("topic t is missing")) == "StreamsError: topic t is missing"
    assert words_of(RuntimeError("partition 3: it is not settled")) == "RuntimeError: partition 3: it is not settled"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_process_with_personal_data_logs_and_ends_without_a_value(log_format: str) -> None:
    program = f"""
import logging, structlog, threading
from streams.logs import configure_logging
configure_logging({log_format!r}, masks_values=True)
log = structlog.get_logger("ours")
error = ValueError("{MARKED}")
for _ in range(2):
    log.error("stopping after an unexpected error", exc_info=error)
try:
    float("{MARKED}")
except ValueError:
    logging.getLogger("mode").exception("Crashed")
thread = threading.Thread(target=float, args=("{MARKED}",))
thread.start(); thread.join()
raise KeyError("{MARKED}")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert MARKED not in done.stdout + done.stderr
    assert done.stderr.count(f"ValueError: {PERSONAL_MASK}") + done.stderr.count("ValueError: \\u2022") >= 4
    assert f"KeyError: {PERSONAL_MASK}" in done.stderr


@pytest.fixture
def schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped schemas, with keys and positions that are personal."""
    folder = tmp_path / "schemas"
    for path in Catalog.load().root.rglob("*"):
        if path.is_file() and path.suffix in {".avsc", ".toml"}:
            target = folder / path.relative_to(Catalog.load().root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (folder / "subjects.toml").write_text(f'["{GPS.subject}"]\npersonal = ["device_id", "latitude"]\n')
    monkeypatch.setenv("STREAMS_SCHEMAS_DIR", str(folder))
    return folder


HEADER = "event_id,device_id,sequence,event_time,latitude,longitude"
ROWS = (
    f"e-1,{MARKED},1,2026-01-01T00:00:00Z,no-{MARKED},13.4",
    f"e-2,{MARKED},1,2026-01-01T00:00:00Z,991.25,13.4",
    f"e-3,{MARKED},1,no-time,52.5,13.4",
    f"e-4,{MARKED},1",
    f"e-5,1,1,{MARKED},52.5,13.4",
    "e-6,1,4917012345678901,52.5,13.4,x",
    f"e-7,1,{MARKED},2026-01-01T00:00:00Z,52.5,13.4",
    "e-8,1,1,4917012345678,52.5,13.4",
)
"""Some of them with a personal value in a field that is not personal: their columns are shifted."""
QUOTED = (MARKED, "991.25", "no-time", "4917012345678901", "52.5", "4917012345678")


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize("output", ["text", "json"])
def test_bad_rows_of_a_file_are_shown_without_personal_values_and_written_as_they_are(
    tmp_path: Path, output: str
) -> None:
    path, bad = tmp_path / "rows.csv", tmp_path / "bad.ndjson"
    path.write_text("\n".join((HEADER, *ROWS)))
    arguments = ["ingest", "file", str(path), "--topic", GPS.source, "--dry-run", "--format", output]
    done = CliRunner().invoke(app, [*arguments, "--bad-rows", str(bad)])
    shown = done.stdout + done.stderr
    assert "latitude" in shown, shown
    assert not [value for value in QUOTED if value in shown], shown
    assert "event_time is a text of 13 characters, expected a time" in shown
    assert "event_time is more than a year ahead of the clock" in shown
    if output == "json":
        rows = json.loads(done.stdout)["bad_rows"]
        assert len(rows) == len(ROWS)
        assert {value for row in rows if isinstance(row["data"], dict) for value in row["data"].values()} == {
            PERSONAL_MASK
        }
        assert [row["data"] for row in rows if not isinstance(row["data"], dict)] == [PERSONAL_MASK]
    assert MARKED in bad.read_text(encoding="utf-8"), "to be mended, a row is needed as it is"


@pytest.mark.usefixtures("schemas")
@pytest.mark.parametrize(
    "first_row",
    [f"e-1,{MARKED},1,2026-01-01T00:00:00Z,52.5,13.4", f"{MARKED},{MARKED},1,2026-01-01T00:00:00Z,52.5,13.4"],
)
def test_a_file_without_a_header_has_no_row_quoted_as_names_of_columns(tmp_path: Path, first_row: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"{first_row}\n{first_row}\n")
    arguments = ["ingest", "file", str(path), "--topic", GPS.source, "--dry-run"]
    for also in ([], ["--map", "device_id=device"]):
        done = CliRunner().invoke(app, [*arguments, *also])
        shown = f"{done.stdout}{done.stderr}{done.exception}"
        assert done.exit_code != 0
        assert not [value for value in (MARKED, "2026-01-01", "52.5") if value in shown], shown
        assert "is the first line a header?" in shown or "columns 1 and 2 have the same name" in shown


def test_names_of_columns_are_listed_where_they_are_a_header_or_nothing_is_personal() -> None:
    fields = fields_of({"fields": [{"name": "latitude", "type": "double"}, {"name": "name", "type": "string"}]})
    assert listed(["van", "x"], fields, {}) == "van, x"
    personal = fields_of(
        {"fields": [{"name": "latitude", "type": "double"}, {"name": "name", "type": "string", "pii": True}]}
    )
    assert listed(["van", "name"], personal, {}) == "van, name"
    assert listed(["van", "x"], personal, {"name": "van"}) == "van, x"
    assert listed(["lat", "x"], personal, {}).startswith("lat among 2 columns, none with the name of a field")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (MARKED, "a text of 13 characters"), ("", "an empty text"), (4_917_012, "a whole number of 7 digits"),
        (-7, "a whole number of 1 digit"), (True, "true or false"), (1.5, "a decimal number"),
        (Decimal("1.5"), "a decimal number"), (b"anna", "4 bytes"), ({"a": MARKED}, "an object"), ([MARKED], "a list"),
        (date(2026, 1, 2), "a date or a time"), (UUID(int=7), "a UUID"),
        (timedelta(days=7), "a value of the type timedelta"),
    ],
)  # fmt: skip
def test_of_a_value_kind_and_length_are_told(value: object, words: str) -> None:
    assert outlined(value) == words


def test_how_far_a_time_is_ahead_does_not_tell_a_number_that_is_no_time() -> None:
    assert [far_ahead(ms) for ms in (60_001, 86_400_000, 40 * 86_400_000, 4_917_012_345_678, 2**60)] == [
        "60001 ms", "more than a day", "more than 30 days", "more than a year", "more than 1,000 years",
    ]  # fmt: skip


@pytest.mark.parametrize(("flow", "is_quoted"), [(replace(GPS, personal=frozenset()), True), (PRIVATE, False)])
def test_the_gateway_quotes_values_only_where_nothing_is_personal(flow: Pipeline, is_quoted: bool) -> None:
    schema = Catalog.load().latest(GPS.subject)
    plain = json.loads(schema.text)
    for field in plain["fields"]:
        field.pop("pii", None)
    schema = replace(schema, text=json.dumps(plain), parsed=plain)
    reader = RowReader(flow, schema, 7, decoder_of(flow, load_settings()))
    good = {"event_id": "g", "device_id": "d", "sequence": 1, "latitude": 1.0, "longitude": 1.0}
    good |= {"event_time": 1_800_000_000_000}
    rows = [good | {"event_time": MARKED}, good | {"sequence": MARKED}, good | {"latitude": f"no {MARKED}"}]
    found = reader.events([Asked(rows, 0)], 1_800_000_000_000)
    assert len(found.rejections) == len(rows)
    for rejection in found.rejections.values():
        assert (MARKED in rejection.message) is is_quoted, rejection.message
        assert rejection.pointer in {"/event_time", "/sequence", "/latitude"}
