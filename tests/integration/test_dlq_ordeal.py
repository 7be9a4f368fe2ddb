"""The short form of `make dlq-ordeal`: replays that are killed, judged by two oracles."""

import os
from pathlib import Path

import pytest

from loadtest.dlq_ordeal import Run, ordeal_settings
from streams.local.stack import Stack
from tests.integration.workers import fresh_world

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

SEED = int(os.environ.get("SEED", "1"))


def test_rejects_of_all_reasons_are_repaired_and_replayed_once_although_the_replay_is_killed(
    stack: Stack, tmp_path: Path
) -> None:
    fresh_world(stack)
    said: list[str] = []
    run = Run(ordeal_settings(stack.bootstrap_servers, stack.registry_url), tmp_path, seed=SEED, say=said.append)
    try:
        report, letters = run.go(events=6_000, kills=2)
    finally:
        run.close()

    assert report.ok, (SEED, report, said)
    assert letters.ok, (SEED, letters, said)
    assert run.found.kills > 0
    assert letters.replays > letters.letters > 500
    assert {"replayed, clean", "replayed, late", "discarded"} <= letters.resolved.keys()
