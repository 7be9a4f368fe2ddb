"""Files as a person has them, up to what is said about them; nothing is sent (`dry_run`)."""

import gzip
import io
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logistics.flows.gps import GPS
from streams.errors import StreamsError, UsageError
from streams.ingest import IngestOptions, IngestResult, InputFormat, ingest_file, ingest_files
from streams.ingest import events as events_module
from streams.ingest.formats import delimited
from streams.settings import Settings

pytestmark = pytest.mark.thorough

HEADER = "event_id,device_id,sequence,event_time,latitude,longitude\n"
FINE = "e{0},d,0,2024-01-31T10:00:00Z,48.1,11.5\n"
BASE = {"device_id": "d", "sequence": 0, "event_time": "2024-01-31T10:00:00Z", "latitude": 48.1, "longitude": 11.5}


def judged(path: Path | str, **options: Any) -> IngestResult:
    return ingest_file(Settings(), Path(path), GPS.source, IngestOptions(dry_run=True, **options))


def said(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streams", "ingest", "file", "--topic", GPS.source, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, **options)


def csv_file(path: Path, *rows: int, more: str = "") -> Path:
    path.write_text(HEADER + "".join(FINE.format(row) for row in rows) + more, encoding="utf-8")
    return path


# --- NDJSON columns that come late ------------------------------------------------------------------------------------


def ndjson(path: Path, first: int, count: int = 1200, **late: Any) -> Path:
    rows = [{**BASE, "event_id": f"e{line}", **(late if line >= first else {})} for line in range(1, count + 1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sent_of(path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[dict[str, Any]]:
    """The events that would be sent."""
    found: list[dict[str, Any]] = []
    encode = events_module.Encoder.encode

    def noting(self: Any, batch: Any, shift_ms: int = 0) -> Any:
        found.extend(pa.table(batch.columns).to_pylist())
        return encode(self, batch, shift_ms)

    monkeypatch.setattr(events_module.Encoder, "encode", noting)
    assert judged(path, **options).bad == 0
    return found


@pytest.mark.parametrize("first", [1, 2, 1000, 1001, 1200])
@pytest.mark.parametrize("column", ["speed_kmh", "speed"])
def test_a_field_of_ndjson_is_kept_wherever_it_begins_mapped_or_not(
    first: int, column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ndjson(tmp_path / "late.ndjson", first, **{column: 77.0})
    mapping = {} if column == "speed_kmh" else {"speed_kmh": column}
    speeds = [row["speed_kmh"] for row in sent_of(path, monkeypatch, mapping=mapping)]
    assert speeds == [None] * (first - 1) + [77.0] * (1201 - first)


def test_a_late_event_id_and_sequence_are_those_of_their_rows_and_others_are_derived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "late.ndjson"
    plain = {name: value for name, value in BASE.items() if name != "sequence"}
    rows = [plain] * 1100 + [{**plain, "event_id": "given", "sequence": 7}]
    path.write_text("".join(json.dumps({**row, "latitude": n / 100}) + "\n" for n, row in enumerate(rows)))
    events = sent_of(path, monkeypatch)
    assert (events[-1]["event_id"], events[-1]["sequence"]) == ("given", 7)
    assert [event["sequence"] for event in events[:-1]] == list(range(1100))
    assert len({event["event_id"] for event in events}) == 1101


def test_a_required_field_that_comes_late_makes_the_rows_before_it_bad(tmp_path: Path) -> None:
    path = tmp_path / "late.ndjson"
    without = {name: value for name, value in BASE.items() if name != "latitude"}
    path.write_text("".join(json.dumps(row) + "\n" for row in [without] * 1100 + [BASE] * 5), encoding="utf-8")
    result = judged(path)
    assert (result.valid, result.bad) == (5, 1100)
    assert result.bad_rows.first[0].reason == "latitude is missing"


def test_a_column_that_no_row_has_is_refused_and_late_columns_that_fill_nothing_are_named(tmp_path: Path) -> None:
    path = ndjson(tmp_path / "late.ndjson", 1150, velocity=3.0, speed=4.0)
    with pytest.raises(UsageError, match=r"there is no column 'speeed', only .*velocity, speed"):
        judged(path, mapping={"speed_kmh": "speeed"})
    assert [(one.column, one.field) for one in judged(path).left_out] == [("velocity", None), ("speed", "speed_kmh")]


def test_a_key_that_comes_twice_in_an_object_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "twice.ndjson"
    line = json.dumps({**BASE, "event_id": "a"})
    path.write_text(line + "\n" + line.replace("{", '{"event_id": "b", ') + "\n", encoding="utf-8")
    result = judged(path)
    assert (result.valid, [row.reason for row in result.bad_rows.first]) == (1, ["not JSON: 'event_id' comes twice"])


@pytest.mark.parametrize(
    ("content", "bad"), [("", []), ("\n\n", []), ("[{}, {}]\n", [1]), ('{\n  "device_id": "d"\n}\n', [1, 2, 3])]
)
def test_ndjson_without_an_object_has_no_rows_or_bad_ones(content: str, bad: list[int], tmp_path: Path) -> None:
    (tmp_path / "f.ndjson").write_text(content, encoding="utf-8")
    result = judged(tmp_path / "f.ndjson")
    assert (result.valid, [row.number for row in result.bad_rows.first]) == (0, bad)


# --- which files ------------------------------------------------------------------------------------------------------


def test_patterns_and_several_files_are_each_read_and_all_are_opened_before_one_is_judged(tmp_path: Path) -> None:
    csv_file(tmp_path / "b.csv", 2, 3)
    csv_file(tmp_path / "a.csv", 1, more="x,d,0,2024-01-31T10:00:00Z,99,11.5\n")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress((HEADER + FINE.format(9)).encode()))
    results = ingest_files(
        Settings(), [str(tmp_path / "*.csv*"), tmp_path / "b.csv"], GPS.source, IngestOptions(dry_run=True)
    )
    assert [Path(one.name).name for one in results] == ["a.csv", "b.csv", "c.csv.gz", "b.csv"]
    assert [(one.valid, one.bad) for one in results] == [(1, 1), (2, 0), (1, 0), (2, 0)]
    with pytest.raises(UsageError, match=r"no-.*\.csv: no file matches"):
        ingest_files(Settings(), [str(tmp_path / "no-*.csv")], GPS.source, IngestOptions(dry_run=True))
    (tmp_path / "d.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"d\.csv: no column for the field 'device_id'"):
        ingest_files(Settings(), [tmp_path / "a.csv", tmp_path / "d.csv"], GPS.source, IngestOptions(dry_run=True))
    with pytest.raises(UsageError, match="--rebase-time: moves the times of one file"):
        ingest_files(
            Settings(),
            [tmp_path / "a.csv", tmp_path / "b.csv"],
            GPS.source,
            IngestOptions(dry_run=True, rebase_time=True),
        )
    odd = csv_file(tmp_path / "odd[1].csv", 1)
    assert judged(odd).valid == 1


def test_standard_input_is_read_once_and_needs_a_format() -> None:
    content = io.BytesIO((HEADER + FINE.format(1)).encode())
    with pytest.raises(UsageError, match="-: standard input has no extension: say --input-format"):
        ingest_files(Settings(), ["-"], GPS.source, IngestOptions(dry_run=True), standard_input=content)
    content.seek(0)
    (result,) = ingest_files(
        Settings(), ["-"], GPS.source, IngestOptions(InputFormat.CSV, dry_run=True), standard_input=content
    )
    assert (result.name, result.valid) == ("-", 1)
    with pytest.raises(UsageError, match="standard input can be read once"):
        ingest_files(
            Settings(), ["-", "-"], GPS.source, IngestOptions(InputFormat.CSV, dry_run=True), standard_input=content
        )


@pytest.mark.parametrize(
    ("beginning", "what"), [(b"PK\x03\x04", "a ZIP archive"), (b"BZh9", "bzip2"), (b"\xfd7zXZ\0", "compressed with xz")]
)
def test_archives_are_named_as_such(beginning: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(beginning + b"rest")
    with pytest.raises(StreamsError, match=f"it is .*{what}.*unpack it first"):
        judged(tmp_path / "f.csv")


def test_a_compressed_file_cut_short_says_after_which_line(tmp_path: Path) -> None:
    ids = random.Random(8123)
    content = (HEADER + "".join(FINE.format(f"{ids.getrandbits(128):x}") for _ in range(60_000))).encode()
    for name, data in (
        ("f.csv.gz", gzip.compress(content)),
        ("f.csv.zst", pa.Codec("zstd").compress(content, asbytes=True)),
    ):
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(StreamsError, match=rf"{name}: (damaged somewhere|cannot be read) after line \d+"):
            judged(tmp_path / name)


# --- dialects ---------------------------------------------------------------------------------------------------------


def test_a_line_without_end_is_a_bad_row_and_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "LINE_BYTES_MAX", 1000)
    path = csv_file(tmp_path / "f.csv", 1, more="x" * 5000 + "\n" + FINE.format(2) + "y" * 5000)
    result = judged(path)
    assert [(row.number, row.reason) for row in result.bad_rows.first] == [
        (3, "not CSV: the line is longer than 1000 characters"),
        (5, "not CSV: the line is longer than 1000 characters"),
    ]
    assert result.valid == 2


def test_an_unclosed_quote_says_which_lines_it_swallowed_and_one_in_the_header_is_one_error(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "f.csv", 1, more='"open,d,0,2024-01-31T10:00:00Z,48.1,11.5\n' + FINE.format(3) * 2)
    result = judged(path)
    assert (result.valid, result.bad) == (1, 1)
    assert result.bad_rows.first[0].reason.endswith("(lines 3 to 5: is a quote not closed?)")
    path.write_text('"event_id,device_id\nx,y\n', encoding="utf-8")
    with pytest.raises(StreamsError, match=r"f\.csv: not a readable csv file"):
        judged(path)


def test_utf_16_without_a_mark_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes((HEADER + FINE.format(1)).encode("utf-16-le"))
    with pytest.raises(StreamsError, match="its header has zero bytes: --encoding says what it is"):
        judged(tmp_path / "f.csv")


def test_parquet_times_of_nanoseconds_in_bad_rows_are_written(tmp_path: Path) -> None:
    moment = 1_706_695_200_123_456_789
    columns = {name: pa.array([value]) for name, value in {**BASE, "latitude": 99.0}.items() if name != "event_time"}
    path, bad = tmp_path / "f.parquet", tmp_path / "bad.ndjson"
    pq.write_table(pa.table({**columns, "event_time": pa.array([moment], pa.timestamp("ns"))}), path)
    result = judged(path, bad_rows=bad)
    assert [row.reason for row in result.bad_rows.first] == ["latitude is outside [-90, 90]"]
    assert json.loads(bad.read_text())["data"]["event_time"] == "2024-01-31 10:00:00.123456789"


# --- the file of bad rows ---------------------------------------------------------------------------------------------


def test_bad_rows_never_go_into_a_file_that_is_read_by_whatever_name(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "f.csv", 1)
    content = path.read_bytes()
    (tmp_path / "soft").symlink_to(path)
    (tmp_path / "hard").hardlink_to(path)
    (tmp_path / "directory").symlink_to(tmp_path)
    for name in ("f.csv", "soft", "hard", "directory/f.csv", "directory/../" + tmp_path.name + "/f.csv"):
        with pytest.raises(UsageError, match="is the file that is read"):
            judged(path, bad_rows=tmp_path / name)
        with pytest.raises(UsageError, match="is the file that is read"):
            judged(tmp_path / "soft", bad_rows=tmp_path / name)
    assert path.read_bytes() == content


def test_the_file_of_bad_rows_appears_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path, bad = csv_file(tmp_path / "f.csv", 1, more="too,short\n"), tmp_path / "bad.ndjson"
    bad.write_text("earlier\n", encoding="utf-8")
    (tmp_path / "link").symlink_to(bad)
    ids = random.Random(8123)
    rows = "".join(FINE.format(f"{ids.getrandbits(128):x}") for _ in range(60_000))
    broken = tmp_path / "g.csv.gz"
    broken.write_bytes(gzip.compress((HEADER + "too,short\n" + rows).encode())[:-20])
    with pytest.raises(StreamsError, match="ended before the end-of-stream marker"):
        judged(broken, bad_rows=bad)
    assert bad.read_text(encoding="utf-8") == "earlier\n"
    judged(path, bad_rows=tmp_path / "link")
    (row,) = [json.loads(line) for line in bad.read_text(encoding="utf-8").splitlines()]
    assert (row["file"], row["row"], row["data"]) == (str(path), 3, ["too", "short"])
    assert (tmp_path / "link").is_symlink()
    assert {one.name for one in tmp_path.iterdir()} == {"f.csv", "bad.ndjson", "link", "g.csv.gz"}
    assert judged(path, bad_rows=Path("/dev/null")).bad == 1
    assert Path("/dev/null").is_char_device()


def test_bad_rows_that_cannot_be_written_are_one_clear_error(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "f.csv", more="too,short\n" * 10_000)
    with pytest.raises(UsageError, match=r"--bad-rows .*: cannot be written: No such file or directory"):
        judged(path, bad_rows=tmp_path / "none" / "bad.ndjson")
    with pytest.raises(StreamsError, match="--bad-rows /dev/full: cannot be written: No space left on device"):
        judged(path, bad_rows=Path("/dev/full"))


# --- what the command says --------------------------------------------------------------------------------------------


def test_the_command_names_lines_columns_and_numbers_as_a_person_would(tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000
    path = tmp_path / "f.csv"
    path.write_text(
        "device_id,event_time,latitude,longitude,Speed,colour\n"
        f"d,{now - 1000},48.1,11.5,3,red\nd,{now + 86_400_000},48.1,11.5,3,red\n",
        encoding="utf-8",
    )
    found = said(path, "--dry-run")
    assert found.returncode == 100
    assert found.stdout == "2 rows: 1 valid, 1 bad; nothing was sent (--dry-run)\n"
    lines = found.stderr.splitlines()
    assert lines[0] == ("the column 'Speed' fills no field and is left out; for speed_kmh say --map speed_kmh=Speed")
    assert lines[1] == "the column 'colour' fills no field and is left out"
    assert lines[2].startswith("line 3: event_time is 86")
    assert lines[3] == "streams: 1 of 2 rows is bad and would not be sent; --bad-rows PATH writes them all"
    assert len(lines) == 4
    found = said(path, "-", "--input-format", "csv", "--dry-run", "--format", "json", input=path.read_text())
    figures = json.loads(found.stdout)
    assert (figures["rows"], figures["valid"], figures["sent"], figures["bad"]) == (4, 2, 0, 2)
    assert [(one["file"], one["rows"]) for one in figures["files"]] == [(str(path), 2), ("-", 2)]
    assert figures["files"][0]["columns_left_out"] == ["Speed", "colour"]
    assert [(row["file"], row["row"]) for row in figures["bad_rows"]] == [(str(path), 3), ("-", 3)]


@pytest.mark.parametrize(
    "arguments",
    [
        [b"\xff.csv"],
        [b"f.csv", "--map", b"\xff=a"],
        [b"f.csv", "--map", b"device_id=\xff"],
        [b"f.csv", "--topic", b"\xff"],
        [b"f.csv", "--encoding", b"\xff"],
        [b"f.csv", "--timezone", b"\xff"],
        [b"f.csv", "--delimiter", b"\xff\xff"],
        [b"f.csv", "--bad-rows", b"none/\xff"],
        [b"f.csv", "--input-format", b"\xff"],
        [b"f.csv", "--bad-rows", b"f.csv"],
    ],
)
def test_arguments_that_cannot_be_decoded_are_wrong_usage_without_a_traceback(
    arguments: list[Any], tmp_path: Path
) -> None:
    csv_file(tmp_path / "f.csv", 1)
    root = Path(__file__).parents[2]
    found = said(*arguments, "--dry-run", cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)})
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr


def test_output_that_finds_no_room_is_one_line(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "f.csv", 1)
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "streams", "ingest", "file", str(path), "--topic", GPS.source, "--dry-run"]
        found = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert found.returncode == 1
    assert "No space left on device" in found.stderr
    assert found.stderr.count("\n") == 1
