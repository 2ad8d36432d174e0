"""Time limits hold while the server does not answer."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.fleet import kill
from tests.support import Server, Start, Write, wait_until

JOBS = """
import signal, taskq
HERE = os.path.dirname(os.path.abspath(__file__))

@app.task(queue="q")
def quick():
    pass

def seconds_until_interrupted(server, sleep):
    os.kill(server, signal.SIGSTOP)
    began = time.monotonic()
    try:
        while time.monotonic() < began + 12:
            sleep(0.01)
    except taskq.SoftTimeLimitExceeded:
        pass
    os.kill(server, signal.SIGCONT)
    return time.monotonic() - began

@app.task(queue="q", soft_time_limit=0.5)
def in_main_thread(server):
    return seconds_until_interrupted(server, time.sleep)

@app.task(pool="thread", soft_time_limit=0.5)
def in_thread(server):
    return seconds_until_interrupted(server, time.sleep)

@app.task(soft_time_limit=0.5)
async def on_loop(server):
    os.kill(server, signal.SIGSTOP)
    began = time.monotonic()
    try:
        await asyncio.sleep(12)
    except taskq.SoftTimeLimitExceeded:
        pass
    os.kill(server, signal.SIGCONT)
    return time.monotonic() - began

@app.task(time_limit=1)
def hard():
    with open(os.path.join(HERE, "hard"), "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)
"""


@pytest.mark.parametrize("name", ["in_main_thread", "in_thread", "on_loop"])
def test_a_soft_limit_is_raised_while_the_server_does_not_answer(
    name: str, jobs: Write, start_worker: Start, own_server: Server
) -> None:
    module = jobs(JOBS, url=own_server.url)
    start_worker("-c", "1", url=own_server.url)
    for result in module.quick.delay_many([()] * 50):  # the child knows that it may take many at once
        result.get(timeout=20)
    calls = [module.quick.call() for _ in range(5)]

    result = module.app.enqueue_many([*calls, getattr(module, name).call(own_server.pid)])[-1]

    assert result.get(timeout=60) < 5


def test_a_hard_limit_holds_while_what_another_child_held_cannot_be_given_back(
    jobs: Write, start_worker: Start, own_server: Server, tmp_path: Path
) -> None:
    module = jobs(JOBS, url=own_server.url)
    worker = start_worker("-c", "6", url=own_server.url)
    wait_until(lambda: len(worker.children()) == 6, "all run")
    module.hard.delay()
    wait_until((tmp_path / "hard").exists, "it runs")
    wait_until(lambda: (tmp_path / "hard").read_text(), "it has said where")
    others = set(worker.children()) - {victim := int((tmp_path / "hard").read_text())}

    own_server.signal(signal.SIGSTOP)
    for other in others:
        kill(other)

    wait_until(lambda: victim not in worker.children(), "it is killed", seconds=4)
    own_server.signal(signal.SIGCONT)
