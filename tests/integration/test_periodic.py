"""Entries tick in real workers: once each, whatever dies, whatever clocks do, whichever version of the code starts."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from taskq import TaskQ
from taskq.broker import call
from taskq.periodic.entry import Entry
from taskq.periodic.schedule import Every
from tests.support import Start, Write, wait_until

RECORD = """
from taskq import every

HERE = os.path.dirname(os.path.abspath(__file__))

@app.task(bind=True, ignore_result=True, name="record")
def record(self, what="", seconds=0):
    with open(os.path.join(HERE, "ticks"), "a") as file:
        file.write(f"{self.request.id} {self.request.eta.timestamp() * 1000:.0f} {what}\\n")
    time.sleep(seconds)
"""


def recorded(folder: Path) -> list[list[str]]:
    """What ran: id, tick, argument."""
    path = folder / "ticks"
    return [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []


def state(app: TaskQ, name: str) -> dict[bytes, bytes]:
    return app.client.broker.run(call.whole_hash(app.client.keys, f"entry:{name}"))


def number(app: TaskQ, name: str, field: bytes) -> int:
    return int(state(app, name).get(field, b"0"))


def entries(app: TaskQ) -> dict[str, Entry]:
    found = app.client.broker.run(call.whole_hash(app.client.keys, "periodic"))
    return {name.decode(): Entry.read(name.decode(), stored) for name, stored in found.items()}


def turn_clock(app: TaskQ, ms: int) -> None:
    """Put the clock that scripts go by forward or back."""
    command = call.Command(None, [b"INCRBY", app.client.keys["clock"], ms], lambda reply: reply)
    app.client.broker.run(command)


def test_an_entry_ticks_and_its_task_knows_for_which_time_it_runs(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(RECORD + "app.periodic('e', every(1), record, ('hello',))\n")
    start_worker("-c", "1")

    wait_until(lambda: len(recorded(tmp_path)) >= 3, "three ticks ran")
    for id_, tick, what in recorded(tmp_path):
        assert (id_, what) == (f"cron:e:{tick}", "hello")
        assert int(tick) % 1000 == 0
    assert number(module.app, "e", b"sent") >= 3
    assert b"late-max" in state(module.app, "e")


def test_an_entry_that_must_not_overlap_waits_for_its_last_message(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(RECORD + "app.periodic('e', every(1), record, ('x', 60), overlap='skip')\n")
    start_worker("-c", "1")

    wait_until(lambda: number(module.app, "e", b"skipped") >= 2, "two ticks were skipped")
    assert len(recorded(tmp_path)) == 1
    assert number(module.app, "e", b"sent") == 1


def test_a_clock_that_is_set_back_repeats_no_tick_and_one_set_forward_makes_up_for_them(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(RECORD + "app.periodic('e', every(1), record)\n@app.task\ndef noop(): ...\n")
    app = module.app
    start_worker("-c", "1")
    wait_until(lambda: number(app, "e", b"sent") >= 2, "it ticks")

    turn_clock(app, -3_600_000)
    before = number(app, "e", b"sent")
    module.noop.apply_async(countdown=1.5).get(timeout=30)  # by the clock that was set back
    assert number(app, "e", b"sent") <= before + 1, "ticks that have been do not come again"

    turn_clock(app, 3_600_000)
    wait_until(lambda: number(app, "e", b"sent") >= before + 3, "it ticks again")
    sent, left_out = number(app, "e", b"sent"), number(app, "e", b"left-out")
    turn_clock(app, 3_600_000)
    wait_until(lambda: number(app, "e", b"left-out") > left_out, "the ticks of an hour were missed")
    wait_until(lambda: number(app, "e", b"sent") >= sent + 3, "it ticks on")
    assert number(app, "e", b"sent") < sent + 100, "one was sent for all of them"
    wait_until(lambda: len(recorded(tmp_path)) >= sent + 3, "they ran")
    assert set(Counter(row[0] for row in recorded(tmp_path)).values()) == {1}


def test_an_old_workers_start_does_not_restore_what_newer_code_replaced(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    declare = "app.periodic({!r}, every({}), record)\n".format
    module = jobs(RECORD + declare("changed", 1000) + declare("gone", 1000))
    app, path = module.app, tmp_path / "jobs.py"
    old_source = path.read_text()
    new_source = old_source.split("app.periodic")[0] + declare("changed", 7)

    def intervals() -> dict[str, int]:
        return {name: entry.schedule.ms for name, entry in entries(app).items() if isinstance(entry.schedule, Every)}

    worker = start_worker("-c", "1")
    wait_until(lambda: intervals() == {"changed": 1_000_000, "gone": 1_000_000}, "they are declared")
    worker.stop()
    path.write_text(new_source)
    worker = start_worker("-c", "1")
    wait_until(lambda: intervals() == {"changed": 7000}, "one is replaced, one removed")
    worker.stop()
    path.write_text(old_source)
    worker = start_worker("-c", "1")
    wait_until(lambda: "taskq cron sync -A jobs" in worker.log, "the old worker says that it is old")
    assert re.search(r"stay as newer code declares them, not as this code does: changed, gone\.", worker.log)
    assert intervals() == {"changed": 7000}
