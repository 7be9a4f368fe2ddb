"""The paired measurement of two revisions: order, ratios, and files of a revision."""

import subprocess
from pathlib import Path

import pytest

from loadtest.paired import CHECKOUT, ROOT, Side, Trial, Work, compared, files_of, positions, table_of, turns
from streams.errors import UsageError


def trial(side: Side, pair: int, *, cpu_s: float, work: Work = Work.INGEST, seconds: float = 2.0) -> Trial:
    return Trial(work, side, pair, 1_000, seconds, cpu_s)


def test_neither_revision_always_comes_first() -> None:
    assert [
        (0, Side.BEFORE), (0, Side.AFTER), (1, Side.AFTER), (1, Side.BEFORE), (2, Side.BEFORE), (2, Side.AFTER),
    ] == turns(3)  # fmt: skip


def test_ratios_are_of_pairs_whatever_the_order_in_which_they_were_measured() -> None:
    trials = [
        trial(Side.BEFORE, 0, cpu_s=1.0), trial(Side.AFTER, 0, cpu_s=2.0, seconds=1.0),
        trial(Side.AFTER, 1, cpu_s=4.0), trial(Side.BEFORE, 1, cpu_s=4.0),
        trial(Side.BEFORE, 0, cpu_s=3.0, work=Work.REPLAY), trial(Side.AFTER, 0, cpu_s=1.0, work=Work.REPLAY),
    ]  # fmt: skip

    ingest, replay = compared(trials)

    assert (Work.INGEST, [0.5, 1.0], 0.75) == (ingest.work, ingest.ratios, ingest.ratio)
    assert [2.0, 1.0] == ingest.wall_ratios
    assert (Work.REPLAY, 3.0) == (replay.work, replay.ratio)
    assert 2 == table_of([ingest, replay]).row_count


def test_the_files_of_a_revision_are_those_that_were_committed(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path / "repo"), *arguments], check=True, capture_output=True)

    (tmp_path / "repo").mkdir()
    git("init", "--quiet")
    (tmp_path / "repo" / "a.txt").write_text("committed", encoding="utf-8")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    (tmp_path / "repo" / "a.txt").write_text("changed", encoding="utf-8")

    found = files_of("HEAD", tmp_path / "before", tmp_path / "repo")

    assert "committed" == (found / "a.txt").read_text(encoding="utf-8")
    assert ROOT == files_of(CHECKOUT, tmp_path / "after")
    with pytest.raises(UsageError, match="no-such-revision"):
        files_of("no-such-revision", tmp_path / "none", tmp_path / "repo")


def test_rows_are_the_same_at_each_call_and_ids_occur_once() -> None:
    rows = positions(1_000)

    assert rows.equals(positions(1_000))
    assert 1_000 == len(set(rows.column("event_id").to_pylist()))
