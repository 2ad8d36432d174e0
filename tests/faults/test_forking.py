"""Children are forked beside other threads of the worker, and inherit no lock that is held."""

from __future__ import annotations

import subprocess
import sys

from tests.support import Start, Write

JOBS = """
import logging, sys, threading
HERE = os.path.dirname(os.path.abspath(__file__))

def work():
    while True:
        print("beside")
        logging.getLogger("beside").warning("beside")  # by two handlers: on standard error, and into a file
        sys.modules.pop("colorsys", None)
        import colorsys

if "worker" in sys.argv:
    logging.getLogger("beside").addHandler(logging.FileHandler(os.path.join(HERE, "beside.log")))
    threading.Thread(target=work, daemon=True).start()

@app.task
def uses(i):
    print("in a task")
    logging.getLogger("beside").warning("in a task")
    import colorsys
    return i
"""


def test_a_child_inherits_no_lock_that_another_thread_held(jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    results = module.uses.delay_many([(i,) for i in range(8)])

    start_worker("-c", "1", "--max-tasks-per-child", "1")

    assert [result.get(timeout=50) for result in results] == list(range(8))


FORKS = """
import logging, multiprocessing

@app.task
async def logs_beside(i):
    for _ in range(20):
        logging.getLogger("beside").warning("beside")
        await asyncio.sleep(0)

def log_and_print():
    logging.getLogger("forked").warning("forked")
    print("forked")

@app.task
def forks(n):
    exits = []
    for _ in range(n):
        process = multiprocessing.get_context("fork").Process(target=log_and_print)
        process.start()
        process.join(10)
        exits.append(process.exitcode)
        process.kill()
    return exits
"""


def test_a_process_that_a_task_forks_inherits_no_lock_that_another_lane_held(jobs: Write, start_worker: Start) -> None:
    module = jobs(FORKS)
    module.logs_beside.delay_many([(i,) for i in range(2000)])

    start_worker("-c", "1")

    assert module.forks.delay(20).get(timeout=50) == [0] * 20


SEVERAL = """
import logging.config, os, threading, time
from taskq.worker.forking import fork_beside_threads

def configure():
    while True:
        logging.config.dictConfig({
            "version": 1,
            "handlers": {"h": {"class": "logging.FileHandler", "filename": os.devnull}},
            "root": {"handlers": ["h"]},
        })
        logging.warning("beside")
        time.sleep(0.01)

def fork_often():
    for _ in range(50):
        pid = os.fork()
        if pid == 0:
            logging.warning("forked")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        logging.warning("after")

fork_beside_threads()
threading.Thread(target=configure, daemon=True).start()
threads = [threading.Thread(target=fork_often) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("all came back")
"""


def test_threads_that_fork_at_once_let_go_what_they_held_while_another_configures_logging() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SEVERAL], capture_output=True, text=True, timeout=50)

    assert done.stdout == "all came back\n"
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
