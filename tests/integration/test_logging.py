"""What a real worker logs, by the configuration of the module that it runs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.support import Start, Write, wait_until

JOBS = """
import json, logging, logging.config

class Json(logging.Formatter):
    def format(self, record):
        error = None if record.exc_info is None else record.exc_info[0].__name__
        return json.dumps({"level": record.levelname, "logger": record.name, "message": record.getMessage(),
                           "taskq": getattr(record, "taskq", None), "error": error})

CONFIG = {
    "version": 1,
    "filters": {"task": {"()": "taskq.TaskFilter"}},
    "formatters": {"json": {"()": Json}},
    "handlers": {"json": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["task"]}},
    "root": {"level": "DEBUG", "handlers": ["json"]},
}
if os.environ.get("IN_WORKER"):
    logging.config.dictConfig(CONFIG)
log = logging.getLogger(__name__)

def main(fails):
    log.info("at work")
    if fails:
        raise KeyError("gone")

async def loop(fails):
    main(fails)

app.task(name="main")(main)
app.task(name="thread", pool="thread", ignore_result=True)(main)
app.task(name="loop")(loop)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_each_task_on_each_lane_is_told_once_in_the_modules_own_format(
    jobs: Write, start_worker: Start, tmp_path: Path, method: str
) -> None:
    module = jobs(JOBS)
    for task in module.app.tasks.values():
        task.delay_many([False, True])

    worker = start_worker("-c", "1", "--drain", "-l", "debug", env={"TASKQ_START_METHOD": method, "IN_WORKER": "1"})
    wait_until(lambda: worker.process.poll() is not None, "it has drained")

    records = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    told = Counter(
        (r["taskq"]["task"], r["level"], r["taskq"].get("outcome"), r["error"]) for r in records if r["taskq"]
    )
    assert told == {
        (task, *rest): n
        for task in ("main", "thread", "loop")
        for *rest, n in (
            ("DEBUG", None, None, 2),
            ("INFO", None, None, 2),  # the task's own line
            ("INFO", "done", None, 1),
            ("INFO", "failed", None, 1),
            ("ERROR", None, "KeyError", 1),
        )
    }
    assert all(r["taskq"] for r in records if r["message"] == "at work")
    assert "Traceback" not in worker.log


def test_without_a_configuration_failures_are_told_and_print_the_task_of_each_line(
    jobs: Write, start_worker: Start
) -> None:
    module = jobs(
        """
        import logging
        @app.task
        def fail():
            logging.getLogger("shop").warning("at work")
            raise KeyError("gone")
        """
    )
    result = module.fail.delay()

    worker = start_worker("-c", "1", "--drain")
    wait_until(lambda: worker.process.poll() is not None, "it has drained")

    log = worker.log
    assert f"shop: jobs.fail[{result.id}] at work" in log
    assert f"taskq.task: task jobs.fail[{result.id}] failed: 'gone'\nTraceback" in log
    assert "KeyError: 'gone'" in log
