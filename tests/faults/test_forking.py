"""Children are forked beside other threads of the worker, and inherit no lock that is held."""

from __future__ import annotations

from tests.support import Start, Write

JOBS = """
import logging, sys, threading

def work():
    while True:
        print("beside")
        logging.getLogger("beside").warning("beside")  # by two handlers: on standard error, and into a file
        sys.modules.pop("colorsys", None)
        import colorsys

logging.getLogger("beside").addHandler(logging.FileHandler("beside.log"))
if "worker" in sys.argv:
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
