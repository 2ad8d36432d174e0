"""Code that gives a task another queue, or another name, beside messages of the code before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from taskq import TaskError
from taskq.cli import main
from tests.support import Start, Write, survey, wait_until

BEFORE = """
@app.task(queue="first")
def moved(i):
    return i

@app.task
def renamed(i):
    return i
"""


def test_messages_of_the_code_before_are_run_said_and_given_up(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(BEFORE, settings="unknown_after=2, lease=1")
    moved = [module.moved.delay(i) for i in range(10)]
    moved.append(module.moved.apply_async((10,), countdown=1))
    renamed = module.renamed.delay(1)
    on_purpose = module.moved.apply_async((1,), queue="elsewhere")
    source = Path(module.__file__ or "")
    source.write_text(source.read_text().replace('queue="first"', 'queue="second"').replace("renamed", "called_so_now"))

    worker = start_worker("-c", "1")

    assert [handle.get(timeout=30) for handle in moved] == list(range(11))
    with pytest.raises(TaskError, match="unknown-task"):
        renamed.get(timeout=30)
    assert on_purpose.state == "PENDING"
    assert "No live worker serves queue elsewhere" in on_purpose.why()
    options = ["--json", "--name", module.app.name, "--url", module.app.client.url]
    shown = CliRunner().invoke(main, ["queues", *options])
    states = {row["queue"]: row["state"] for row in map(json.loads, shown.output.splitlines())}
    assert (states["elsewhere"], states["first"]) == ("no live worker serves it", "")
    wait_until(lambda: "1 messages wait in queue elsewhere, which no live worker serves" in worker.log, "it is said")
    assert {found.balance for found in survey(module.app).values()} == {0}
