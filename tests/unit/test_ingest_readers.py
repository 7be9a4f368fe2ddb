import io
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streams.errors import StreamsError, UsageError
from streams.ingest.chunks import InputFormat
from streams.ingest.formats import avro, delimited, ndjson, parquet
from streams.ingest.readers import first_rows, format_of, open_source

ROWS = [{"a": f"x{number}", "b": number + 0.5} for number in range(7)]


def write(path: Path) -> None:
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=3)
        case ".csv":
            path.write_text("a,b\n" + "".join(f"{row['a']},{row['b']}\n" for row in ROWS), encoding="utf-8")
        case ".ndjson":
            path.write_text("".join(f'{{"a": "{row["a"]}", "b": {row["b"]}}}\n' for row in ROWS), encoding="utf-8")
        case ".avro":
            fields = [{"name": "a", "type": "string"}, {"name": "b", "type": "double"}]
            with path.open("wb") as out:
                fastavro.writer(out, {"type": "record", "name": "R", "fields": fields}, ROWS)


def read(path: Path, *names: str, limit: int | None = None) -> tuple[list[int], list[list[Any]], list[tuple[int, str]]]:
    source = open_source(path, format_of(path))
    numbers: list[int] = []
    columns: list[list[Any]] = [[] for _ in names]
    bad: list[tuple[int, str]] = []
    for chunk in first_rows(source.chunks(names), limit):
        numbers += chunk.numbers.tolist()
        for column, name in zip(columns, names, strict=True):
            values = chunk.columns[name]
            column.extend(values.to_pylist() if isinstance(values, pa.Array) else values)
        bad += [(row.number, row.reason) for row in chunk.bad]
    return numbers, columns, bad


@pytest.mark.parametrize("suffix", ["parquet", "csv", "ndjson", "avro"])
@pytest.mark.parametrize("chunk_rows", [1, 2, 7, 100])
def test_all_formats_give_the_same_rows_in_chunks_of_any_size(
    suffix: str, chunk_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reader in (parquet, delimited, ndjson, avro):
        monkeypatch.setattr(reader, "CHUNK_ROWS_MAX", chunk_rows)
    path = tmp_path / f"file.{suffix}"
    write(path)
    assert open_source(path, format_of(path)).columns == ("a", "b")
    numbers, (b, a), bad = read(path, "b", "a")
    assert [row["a"] for row in ROWS] == a
    assert [row["b"] for row in ROWS] == list(map(float, b))
    first = 2 if suffix == "csv" else 1
    assert list(range(first, first + 7)) == numbers
    assert bad == []
    assert read(path, "a", limit=5)[0] == numbers[:5]
    last = [chunk.position for chunk in open_source(path, format_of(path)).chunks(["a"])][-1]
    assert 0.9 < last <= 1.0


def test_csv_numbers_are_lines_and_bad_lines_do_not_take_others_with_them(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(b'\xef\xbb\xbfa, b\r\n1,2\r\n\r\n"two\nlines",3\n4\n5,6,7\n"x"y,8\n,9\n\xff,10\n')
    numbers, (a, b), bad = read(path, "a", "b")
    assert numbers == [2, 4, 9, 10]
    assert a == ["1", "two\nlines", None, "\udcff"]
    assert b == ["2", "3", "9", "10"]
    assert [number for number, _ in bad] == [6, 7, 8]
    assert [reason[:14] for _, reason in bad] == ["has 1 cell, th", "has 3 cells, t", "not CSV: ',' e"]


def test_blanks_around_a_cell_of_csv_do_not_count_and_blanks_within_it_do(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text('a , b\nvan-1 ,\tx\nvan 2, "y, z"\n   ,w\n   \n" q ",v\n', encoding="utf-8")
    numbers, (a, b), bad = read(path, "a", "b")
    assert ["van-1", "van 2", None, "q"] == a
    assert ["x", "y, z", "w", "v"] == b
    assert ([2, 3, 4, 6], []) == (numbers, bad)


def test_an_unclosed_quote_is_one_bad_row_and_memory_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text('a,b\n1,2\n"3,4\n' + "5,6\n" * 100_000, encoding="utf-8")
    numbers, _, bad = read(path, "a")
    assert numbers[0] == 2
    assert bad[0][0] == 3
    assert len(numbers) > 50_000


def test_ndjson_numbers_are_lines_and_bad_lines_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "LINE_BYTES_MAX", 64)
    path = tmp_path / "f.jsonl"
    long = b'{"a": "' + b"x" * 200 + b'"}\n'
    path.write_bytes(b'{"a": 1}\n\n[1]\n{"a": \n' + long + b'{"b": 2}\nnull\n\xff\n' + b"[" * 63 + b'\n{"a": 3}')
    numbers, (a, b), bad = read(path, "a", "b")
    assert numbers == [1, 6, 10]
    assert a == [1, None, 3]
    assert b == [None, 2, None]
    assert [number for number, _ in bad] == [3, 4, 5, 7, 8, 9]
    assert bad[0][1] == bad[3][1] == "not a JSON object: one a line is expected"
    assert bad[2][1] == "the line is longer than 64 bytes"


def test_a_limit_counts_bad_rows_and_cuts_between_good_and_bad(tmp_path: Path) -> None:
    path = tmp_path / "f.ndjson"
    path.write_text('{"a": 1}\nx\n{"a": 3}\ny\n{"a": 5}\n', encoding="utf-8")
    for limit, good, bad in (
        (1, [1], []),
        (2, [1], [2]),
        (3, [1, 3], [2]),
        (4, [1, 3], [2, 4]),
        (9, [1, 3, 5], [2, 4]),
    ):
        numbers, _, found = read(path, "a", limit=limit)
        assert (good, bad) == (numbers, [number for number, _ in found])


@pytest.mark.parametrize("suffix", ["parquet", "avro"])
def test_a_damaged_file_is_one_clear_error(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"f.{suffix}"
    path.write_bytes(b"this is not it")
    with pytest.raises(StreamsError, match=f"f.{suffix}: not a readable {suffix} file"):
        open_source(path, format_of(path))
    path.write_bytes(b"")
    with pytest.raises(StreamsError, match=f"f.{suffix}: not a readable {suffix} file"):
        open_source(path, format_of(path))


def test_an_avro_file_cut_short_gives_what_is_whole_and_then_says_where(tmp_path: Path) -> None:
    path = tmp_path / "f.avro"
    schema = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]}
    raw = io.BytesIO()
    fastavro.writer(raw, schema, [{"a": "x" * 10}] * 1000, sync_interval=100)
    path.write_bytes(raw.getvalue()[:-500])
    with pytest.raises(StreamsError, match=r"f\.avro: damaged somewhere after row"):
        read(path, "a")


def test_missing_files_and_unknown_extensions_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        format_of(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="not a file"):
        format_of(tmp_path)
    (tmp_path / "f.xml").touch()
    with pytest.raises(UsageError, match=r"the extension is none of \.parquet, \.csv"):
        format_of(tmp_path / "f.xml")
    assert format_of(tmp_path / "f.xml", InputFormat.CSV) is InputFormat.CSV


def test_a_column_name_that_comes_twice_and_a_missing_header_are_named(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("a,b,a\n1,2,3\n", encoding="utf-8")
    with pytest.raises(StreamsError, match="columns 1 and 3 have the same name"):
        open_source(path, InputFormat.CSV)
    path.write_text("", encoding="utf-8")
    with pytest.raises(StreamsError, match="no header line"):
        open_source(path, InputFormat.CSV)
