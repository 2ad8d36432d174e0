"""A backlog older than a set ``discard_after``: what merely waited runs, what was reclaimed is a dead letter."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from taskq import TaskError
from tests.faults.fleet import JOBS, Fleet, Journal, raw, wait_until_idle
from tests.support import SEED, SOAK, Start, Write


@pytest.mark.timeout(180)
def test_of_an_old_backlog_only_what_was_reclaimed_is_discarded(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    chance, (n, kills) = random.Random(SEED), (5000, 20) if SOAK else (500, 6)
    module = jobs(JOBS, settings="lease=2, discard_after=60")
    handles = module.work.delay_many([(i, 0.005) for i in range(n)])
    raw(module, b"SET", module.app.client.keys["clock"], 180_000)  # three times as long
    journal, fleet = Journal(tmp_path), Fleet(start_worker, 2, "-c", "2")
    for k in range(1, kills + 1):
        journal.wait_for(n * k // (kills + 2))
        fleet.kill_one(chance)
        fleet.tend()

    ledger = wait_until_idle(module, 60)["jobs.work"]
    assert ledger.balance == 0
    assert ledger.counters["done"] + ledger.dead == ledger.counters["accepted"] == n
    assert 0 < ledger.dead <= len(fleet.victims), "each killed child held one"
    assert journal.read().repeats == 0, "what was reclaimed does not run again"
    ends = [handle.get(timeout=5, propagate=False) for handle in handles]
    assert all(end == i or isinstance(end, TaskError) for i, end in enumerate(ends))
    assert sum(isinstance(end, TaskError) for end in ends) == ledger.dead
    reasons = raw(module, b"HVALS", module.app.client.keys["reasons"])
    assert all(reason.startswith(b"discarded: older than discard_after") for reason in reasons)
    print(f"seed {SEED}: {n} three times older than discard_after: {n - ledger.dead} ran, {ledger.dead} were reclaimed")
