"""Faults of the table in data, row 20; and the short form of `make dlq-ordeal`: two oracles judge."""

from pathlib import Path

import pytest

from loadtest.dlq_ordeal import Run, ordeal_settings
from streams.local.stack import Stack
from tests.faults.harness import SEED, Result
from tests.integration.workers import fresh_world

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]


@pytest.mark.slow
@pytest.mark.fault(row=20, what="dead-letter replay killed and run again")
def test_rejects_of_all_reasons_are_repaired_and_replayed_once_although_the_replay_is_killed(
    stack: Stack, tmp_path: Path, result: Result
) -> None:
    fresh_world(stack)
    said: list[str] = []
    settings = ordeal_settings(stack.bootstrap_servers, stack.registry_url)
    run = Run(settings, tmp_path, seed=SEED, say=said.append, quiet_s=2.0, kill_s=1.5)
    try:
        report, letters = run.go(events=6_000, kills=2)
    finally:
        run.close()

    result.injected, result.report = run.found.kills, report.as_dict()
    result.notes.append(f"{letters.letters} letters, {letters.replays} replays: {letters.resolved}")
    assert report.ok, (SEED, report, said)
    assert letters.ok, (SEED, letters, said)
    assert run.found.kills > 0
    assert letters.replays > letters.letters > 500
    assert {"replayed, clean", "replayed, late", "discarded"} <= letters.resolved.keys()
