"""Children made by fork, by a fork server and by spawn: all that a worker does with them works with each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taskq import TaskError, TaskQ
from taskq.errors import ConfigError
from taskq.worker.parent.children import Children
from taskq.worker.plan import Plan, lanes_of
from tests.support import Start, Worker, Write, survey, wait_until

THREAD = """
import queue, threading

asked, answered = queue.Queue(), queue.Queue()

def answer():
    while True:
        answered.put(asked.get() + 1)

threading.Thread(target=answer, daemon=True).start()

@app.task
def ask(number):
    asked.put(number)
    return answered.get(timeout=5)
"""

WORK = """
LOG = os.open(os.path.join(os.path.dirname(__file__), "runs.log"), os.O_APPEND | os.O_CREAT | os.O_RDWR)

@app.task
def work(seconds=0.0):
    os.write(LOG, f"{os.getpid()}\\n".encode())
    time.sleep(seconds)
    return os.getpid()

@app.task
def killed_once():
    os.write(LOG, f"{os.getpid()}\\n".encode())
    time.sleep(60 if os.pread(LOG, 100, 0).count(b"\\n") == 1 else 0)  # the first run lasts until it is killed
    return os.getpid()

@app.task(time_limit=0.3)
def overlong():
    time.sleep(60)

@app.task
def fatal():
    os.write(LOG, f"{os.getpid()}\\n".encode())
    os.kill(os.getpid(), 9)
"""

METHODS = ["fork", "forkserver", "spawn"]
each_method = pytest.mark.parametrize("method", METHODS)


def runs(folder: Path) -> list[str]:
    path = folder / "runs.log"
    return path.read_text().splitlines() if path.exists() else []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    return not any(is_alive(pid) for pid in pids)


# -- threads that an import starts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_thread_that_the_module_starts_at_import_runs_in_each_child(
    method: str, jobs: Write, start_worker: Start
) -> None:
    module = jobs(THREAD)
    start_worker("-c", "2", "--start-method", method)

    assert [result.get(timeout=30) for result in module.ask.delay_many(range(20))] == list(range(1, 21))


def test_the_flag_comes_before_the_setting(jobs: Write, start_worker: Start) -> None:
    module = jobs(THREAD, settings="start_method='fork'")
    worker = start_worker("-c", "1", "--start-method", "forkserver", env={"TASKQ_START_METHOD": "spawn"})

    assert module.ask.delay(1).get(timeout=30) == 2
    assert "  concurrency  1 process by forkserver\n" in worker.log


# -- ends, of children and of the worker ------------------------------------------------------------------------------


@each_method
def test_what_a_killed_child_ran_runs_again(method: str, jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(WORK)
    worker = start_worker("-c", "1", "--start-method", method)
    result = module.killed_once.delay()
    wait_until(lambda: len(runs(tmp_path)) == 1, "it runs")

    os.kill(worker.children()[0], signal.SIGKILL)

    assert result.get(timeout=30) == int(runs(tmp_path)[1])
    assert "was killed by SIGKILL" in worker.log
    assert survey(module.app)["jobs.killed_once"].counters["crashes"] == 1


@each_method
def test_all_that_there_is_dies_with_the_worker(method: str, jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(WORK)
    worker = start_worker("-c", "2", "--start-method", method)
    module.work.delay_many([(60,), (60,)])
    wait_until(lambda: len(runs(tmp_path)) == 2, "both children are at work")
    processes = worker.children() + (worker.fork_servers() if method == "forkserver" else [])

    worker.process.kill()
    worker.process.wait()

    wait_until(lambda: gone(processes), "they are gone", 10)


@pytest.mark.parametrize("signal_to", ["worker", "group"])
@each_method
def test_a_stop_lets_end_what_runs(
    method: str, signal_to: str, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(WORK)
    worker = start_worker("-c", "1", "--start-method", method)
    result = module.work.delay(1.0)
    wait_until(lambda: len(runs(tmp_path)) == 1, "it runs")
    children = worker.children()

    if signal_to == "group":  # as systemd does
        os.killpg(worker.process.pid, signal.SIGTERM)
    else:
        worker.process.send_signal(signal.SIGTERM)

    assert worker.process.wait(30) == 0, worker.log
    assert result.get(timeout=5) == int(runs(tmp_path)[0])
    assert gone(children)
    assert "died" not in worker.log


@each_method
def test_ctrl_c_twice_ends_at_once_and_returns_what_ran(
    method: str, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(WORK)
    worker = start_worker("-c", "2", "--start-method", method)
    module.work.delay(60)
    wait_until(lambda: len(runs(tmp_path)) == 1, "it runs")
    wait_until(lambda: len(worker.children()) == 2, "the other is there")

    os.killpg(worker.process.pid, signal.SIGINT)
    wait_until(lambda: "stopping" in worker.log, "it was told")
    os.killpg(worker.process.pid, signal.SIGINT)

    assert worker.process.wait(5) == 1, worker.log
    assert survey(module.app)["jobs.work"].pending == 1
    assert "Traceback" not in worker.log
    assert "KeyboardInterrupt" not in worker.log


def test_a_killed_fork_server_takes_its_children_along_and_others_follow(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(WORK)
    worker = start_worker("-c", "2", "--start-method", "forkserver")
    result = module.killed_once.delay()
    wait_until(lambda: len(runs(tmp_path)) == 1, "it runs")
    children = worker.children()

    os.kill(worker.fork_servers()[0], signal.SIGKILL)

    assert result.get(timeout=30) == int(runs(tmp_path)[1])
    assert gone(children)
    assert survey(module.app)["jobs.killed_once"].balance == 0


def test_a_fork_server_that_is_killed_at_any_moment_is_replaced(jobs: Write, start_worker: Start) -> None:
    module = jobs(WORK)
    worker = start_worker("-c", "3", "--start-method", "forkserver")
    for n in range(8):
        wait_until(lambda: len(worker.fork_servers()) == 1, "there is a fork server")
        (server,) = worker.fork_servers()
        wait_until(lambda n=n: len(worker.children()) >= n % 4, "as many children have been started")  # type: ignore[misc]

        os.kill(server, signal.SIGKILL)
        wait_until(lambda server=server: not is_alive(server), "it is gone")  # type: ignore[misc]

    assert module.work.delay().get(timeout=30) in worker.children()
    assert "Traceback" not in worker.log


# -- what a worker does with its children -----------------------------------------------------------------------------


@each_method
def test_a_child_is_replaced_after_so_many_messages(method: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(WORK)
    worker = start_worker("-c", "1", "--max-tasks-per-child", "2", "--start-method", method)

    pids = [result.get(timeout=30) for result in module.work.delay_many([(0,)] * 6)]

    assert len(set(pids)) == 3
    assert "died" not in worker.log


@pytest.mark.parametrize("signal_to", ["worker", "group"])
@each_method
def test_sighup_replaces_the_children(method: str, signal_to: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(WORK)
    worker = start_worker("-c", "1", "--start-method", method)
    first = module.work.delay().get(timeout=30)

    (os.kill if signal_to == "worker" else os.killpg)(worker.process.pid, signal.SIGHUP)
    wait_until(lambda: not is_alive(first), "the first one has left")

    assert module.work.delay().get(timeout=30) != first
    assert "died" not in worker.log


@each_method
def test_children_are_added_when_work_waits(method: str, jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(WORK)
    worker = start_worker("--autoscale", "1,3", "--start-method", method)
    module.work.delay_many([(60,)] * 3)

    wait_until(lambda: len(set(runs(tmp_path))) == 3, "three run beside one another")
    assert len(worker.children()) == 3


@each_method
def test_a_task_beyond_its_time_limit_fails_with_its_child(method: str, jobs: Write, start_worker: Start) -> None:
    module = jobs(WORK)
    start_worker("-c", "1", "--start-method", method)

    with pytest.raises(TaskError, match="TimeLimitExceeded"):
        module.overlong.delay().get(timeout=30)
    assert module.work.delay().get(timeout=30)


@each_method
def test_a_suspect_runs_alone_until_it_is_a_dead_letter(
    method: str, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(WORK)
    worker = start_worker("-c", "1", "--start-method", method)

    with pytest.raises(TaskError, match="crashed"):
        module.fatal.delay().get(timeout=40)

    assert len(set(runs(tmp_path))) == 3
    assert worker.log.count(" died: ") == 3
    assert module.work.delay().get(timeout=30)


@each_method
def test_a_reload_starts_children_anew(method: str, jobs: Write, start_worker: Start, tmp_path: Path) -> None:
    module = jobs(WORK)
    start_worker("-c", "1", "--reload", "--start-method", method)
    assert module.work.delay().get(timeout=30)

    source = (tmp_path / "jobs.py").read_text()
    (tmp_path / "jobs.py").write_text(source.replace("    return os.getpid()", "    return 'changed'"))

    wait_until(lambda: module.work.delay().get(timeout=30) == "changed", "it runs the new code", 40)


EMBEDDED = """
import os
from taskq import TaskQ
app = TaskQ("embedded")

@app.task
def pid():
    return os.getpid()
"""


@each_method
def test_children_use_the_embedded_server(method: str, short_folder: Path, tmp_path: Path) -> None:
    project = short_folder / tmp_path.name
    project.mkdir()
    (project / "pyproject.toml").write_text(f"[tool.taskq]\nstart_method = '{method}'\n")
    (project / "jobs.py").write_text(EMBEDDED)
    environ = {name: value for name, value in os.environ.items() if name != "TASKQ_URL"}

    def run(*words: str) -> str:
        return subprocess.run(
            [sys.executable, *words], cwd=project, env=environ, capture_output=True, text=True, timeout=40, check=True
        ).stdout

    run("-c", "import jobs; jobs.pid.apply_async(task_id='first')")
    run("-m", "taskq", "worker", "-A", "jobs", "-c", "2", "--drain")

    assert int(run("-c", "import jobs; print(jobs.app.AsyncResult('first').get(timeout=5))")) > 0


# -- children that import the app themselves --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_stacks_are_shown_also_of_a_child_that_still_imports(
    method: str, jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    jobs(
        "import multiprocessing\n"
        "def is_being_imported():\n    print('up', flush=True)\n    time.sleep(60)\n"
        "if multiprocessing.parent_process(): is_being_imported()\n" + WORK
    )
    worker = start_worker("-c", "1", "--start-method", method)
    wait_until(lambda: "up" in worker.log.split(), "the child imports")
    (child,) = worker.children()

    worker.process.send_signal(signal.SIGQUIT)
    wait_until(lambda: "in is_being_imported" in worker.log, "its stack is shown")

    assert is_alive(child)
    assert worker.stop(seconds=10) == 0, worker.log


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_children_that_fail_in_their_long_import_are_not_started_over_and_over(
    method: str, jobs: Write, start_worker: Start
) -> None:
    jobs(
        "import multiprocessing\nif multiprocessing.parent_process(): time.sleep(1.1); raise KeyError('gone')\n" + WORK
    )
    worker = start_worker("-c", "1", "--start-method", method)

    wait_until(lambda: "children keep dying right after their start" in worker.log, "it pauses", 40)
    assert "KeyError: 'gone'" in worker.log


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_an_app_that_has_another_name_in_each_process_is_refused(method: str, jobs: Write, start_worker: Start) -> None:
    jobs(WORK + "\napp.name += str(os.getpid())\n")
    worker = start_worker("-c", "1", "--start-method", method)

    wait_until(lambda: "so its name must not differ" in worker.log, "it says so")


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_an_app_that_no_child_could_find_is_refused(method: str, app: TaskQ) -> None:
    app.task(name="t")(print)
    plan = Plan("", "w", 1, 10, 1.0, False, **lanes_of(app.tasks), start_method=method)

    with pytest.raises(ConfigError, match="start the worker with -A MODULE:ATTR"):
        Children(app, plan)


APPS = {
    "jobs": "",
    "jobs:made": "def make():\n    return TaskQ(app.name, app.settings.url)\nmade = make()\nmade.task(name='t')(len)\n",
    "jobs.made": "made = app\n",
}


@pytest.mark.parametrize("path", APPS)
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_child_finds_the_app_as_its_worker_did(method: str, path: str, jobs: Write, tmp_path: Path) -> None:
    module = jobs(WORK + APPS[path])
    task = module.work if path != "jobs:made" else module.made.tasks["t"]
    result = task.delay(*(["abc"] if task is not module.work else []))

    worker = Worker(tmp_path, module.app.settings.url, "-c", "1", "--drain", "--start-method", method, module=path)

    assert worker.process.wait(30) == 0, worker.log
    assert result.get(timeout=1)
