"""Periodic entries while the workers that keep their time are killed."""

from __future__ import annotations

import random
import time
from pathlib import Path

from taskq import TaskQ
from taskq.broker import call
from taskq.broker.commands import ticking
from tests.support import SOAK, Start, Write, survey, wait_until

JOBS = """
from taskq import every

HERE = os.path.dirname(os.path.abspath(__file__))

@app.task(bind=True, ignore_result=True, name="record")
def record(self):
    with open(os.path.join(HERE, "ticks"), "a") as file:
        file.write(f"{self.request.id}\\n")

for n in range(%d):
    app.periodic(f"e{n}", every(1), record, catch_up="all")
"""


def test_each_tick_is_one_message_while_workers_are_killed_and_started(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    """Entries of every second, workers killed at random: each tick has exactly one message, none is missing.

    With TASKQ_SOAK=1: 5 workers, 200 entries, for a minute.
    """
    n, workers, seconds = (200, 5, 60.0) if SOAK else (20, 2, 4.0)
    app = jobs(JOBS % n, settings="lease=1.0, max_crashes=100").app
    dice = random.Random(7)
    running = [start_worker("-c", "1") for _ in range(workers)]
    wait_until(lambda: survey(app).get("record") and survey(app)["record"].counters["accepted"] >= n, "it ticks")

    kills, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(dice.uniform(0.2, 2.0 if SOAK else 0.8))  # the time between two deaths is what this is about
        victim = dice.randrange(workers)
        running[victim].kill_group()
        kills += 1
        running[victim] = start_worker("-c", "1")
    for name in [f"e{i}" for i in range(n)]:
        app.client.broker.run(ticking.change_entry(app.client.keys, "pause", name, b"the end"))
    wait_until(lambda: _idle(app), "all that was sent has run", 120 if SOAK else 30)

    ticks: dict[str, set[int]] = {}
    for line in (tmp_path / "ticks").read_text().splitlines():
        _, name, tick = line.split(":")
        ticks.setdefault(name, set()).add(int(tick))
    assert set(ticks) == {f"e{i}" for i in range(n)}
    for name, seen in ticks.items():
        assert sorted(seen) == list(range(min(seen), max(seen) + 1, 1000)), f"{name} has a gap"
        assert number(app, name, b"sent") == len(seen), f"{name}: a tick was sent twice, or has not run"
    ledger = survey(app)["record"]
    total = sum(len(seen) for seen in ticks.values())
    assert (ledger.counters["accepted"], ledger.counters["done"], ledger.balance) == (total, total, 0)
    latest = max(number(app, name, b"late-max") for name in ticks)
    print(f"{total} ticks of {n} entries, {kills} of {workers} workers killed; the latest was {latest} ms late")


def number(app: TaskQ, name: str, field: bytes) -> int:
    """A number of an entry's state."""
    return int(app.client.broker.run(call.whole_hash(app.client.keys, f"entry:{name}")).get(field, b"0"))


def _idle(app: TaskQ) -> bool:
    queue = survey(app)["record"]
    return not (queue.pending or queue.suspects or queue.processing or queue.scheduled)
