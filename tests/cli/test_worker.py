"""``taskq worker`` from its start to its end, as seen from the shell."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taskq.broker.call import Command
from tests.cli.conftest import Ran
from tests.support import Server, Start, Write, new_app, survey, wait_until

Run = Callable[..., Ran]

ADD = """
@app.task
def add(a, b):
    return a + b
"""
HANG = """
@app.task
def hang():
    open("running", "w").close()
    time.sleep(60)
"""


# -- what is wrong with -A -------------------------------------------------------------------------------


def test_a_module_that_fails_to_import_shows_its_own_traceback(taskq: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def divide():\n    return 1 / 0\n\ndivide()\n")

    ran = taskq("worker", "-A", "broken")

    assert ran.returncode == 2
    assert "broken.py\", line 2, in divide" in ran.stderr  # fmt: skip
    assert "ZeroDivisionError: division by zero" in ran.stderr
    assert "taskq/loading.py" not in ran.stderr
    assert ran.stderr.splitlines()[-1] == "taskq: importing 'broken' failed, see above"


def test_a_module_that_does_not_exist(taskq: Run) -> None:
    ran = taskq("worker", "-A", "nowhere_to_be_found")

    assert ran.returncode == 2
    assert ran.stderr.startswith("taskq: there is no module 'nowhere_to_be_found' in ")
    assert "Traceback" not in ran.stderr


def test_a_module_that_wants_one_that_is_missing_shows_where(taskq: Run, tmp_path: Path) -> None:
    (tmp_path / "wants.py").write_text("import nowhere_to_be_found\n")

    ran = taskq("worker", "-A", "wants")

    assert ran.returncode == 2
    assert 'wants.py", line 1' in ran.stderr
    assert "ModuleNotFoundError: No module named 'nowhere_to_be_found'" in ran.stderr


def test_a_module_that_leaves_by_sys_exit_does_not_end_the_command_unheard(taskq: Run, tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")

    ran = taskq("worker", "-A", "leaves")

    assert ran.returncode == 2
    assert "SystemExit" in ran.stderr


@pytest.mark.parametrize(
    ("source", "path", "said"),
    [
        ("x = 1", "jobs", "no app in module 'jobs': looked for an attribute `app`, then for a single TaskQ"),
        ("x = 1", "jobs:x", "'x' in module 'jobs' is 1, not a TaskQ"),
        ("x = 1", "jobs:y", "module 'jobs' has no 'y'"),
        ("x = 1", "jobs:x.y", "module 'jobs' has no 'x.y'"),
        ("x = 1", "jobs.py", "'jobs.py' is not the name of a module, as in an import; did you mean -A jobs?"),
        ("x = 1", "./jobs.py:app", "did you mean -A jobs?"),
        ("x = 1", "jbos", "there is no module 'jbos' in "),
        ("x = 1", "jbos", "; did you mean jobs?"),
        ("x = 1", "jobs.app", "there is no module 'jobs.app': jobs has no app"),
        ("from taskq import TaskQ\nmine = TaskQ('a')", "jobs.app", "did you mean -A jobs:mine?"),
        ("from taskq import TaskQ\nmine = TaskQ('a')", "jobs.mine", "jobs.mine has no tasks"),
        ("x = 1", "some/jobs", "did you mean -A some.jobs?"),
        ("x = 1", "", "'' is not the name of a module"),
        ("from taskq import TaskQ\na = TaskQ('a')\nb = TaskQ('b')", "jobs", "several apps (a, b)"),
        ("from taskq import TaskQ\napp = TaskQ('a')", "jobs", "has no tasks"),
        ("from taskq import TaskQ\napp = TaskQ('a b')", "jobs", "app 'a b' is not a name"),
    ],
)
def test_a_module_without_an_app_says_what_was_looked_for(
    taskq: Run, tmp_path: Path, source: str, path: str, said: str
) -> None:
    (tmp_path / "jobs.py").write_text(source)

    ran = taskq("worker", "-A", path)

    assert ran.returncode == 2
    assert said in ran.stderr


def test_an_app_is_needed(taskq: Run) -> None:
    ran = taskq("worker")

    assert ran.returncode == 2
    assert "'-A'" in ran.stderr


# -- reaching the server ---------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://localhost", "redis://localhost:port", "localhost:6379", "unix://"])
def test_a_wrong_url_is_a_line_and_no_traceback(taskq: Run, tmp_path: Path, url: str) -> None:
    (tmp_path / "jobs.py").write_text("from taskq import TaskQ\napp = TaskQ('a')\n@app.task\ndef f(): pass\n")

    ran = taskq("worker", "-A", "jobs", url=url)

    assert ran.returncode == 2
    assert ran.stderr.startswith("taskq: the server URL ")
    assert "Traceback" not in ran.stderr


def test_a_server_that_is_down_is_waited_for(own_server: Server, jobs: Write, start_worker: Start) -> None:
    module = jobs(ADD, url=own_server.url)
    own_server.kill()
    worker = start_worker("-c", "1", url=own_server.url)
    wait_until(lambda: "taskq: waiting for the server: no answer from unix://" in worker.log, "it says that it waits")
    assert "Traceback" not in worker.log

    own_server.start()

    assert module.add.delay(1, 2).get(timeout=30) == 3


def test_a_server_that_refuses_the_users_keys_is_a_line_and_no_traceback(
    own_server: Server, jobs: Write, taskq: Run
) -> None:
    words = ["ACL", "SETUSER", "guest", "on", ">pw", "~other:*", "+@all"]
    new_app(own_server.url).client.broker.run(Command(None, words, lambda reply: reply))
    jobs(ADD, url=own_server.url.replace("unix://", "unix://guest:pw@"))

    ran = taskq("worker", "-A", "jobs")

    assert ran.returncode == 2
    assert "taskq: the server refused: the user 'guest' of unix://guest:***@" in ran.stderr
    assert "lacks a right for" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_rights_that_the_documentation_names_are_enough(
    own_server: Server, jobs: Write, taskq: Run, tmp_path: Path
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "deployment.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("ACL SETUSER"))
    module = jobs(ADD, url=own_server.url.replace("unix://", "unix://shop:secret@"), settings="lease=1")
    words = line.replace("{shop:", f"{{{module.app.name}:").split()
    new_app(own_server.url).client.broker.run(Command(None, list(words), lambda reply: reply))
    result, wrong = module.add.delay(1, 2), module.add.delay(1, "x")
    module.add.apply_async((1, 2), countdown=3600)

    for command in (["worker", "-A", "jobs", "-c", "1", "--drain"], ["reaper", "--once"], ["dead", "replay", "--all"]):
        ran = taskq(*command, url=module.app.settings.url)
        assert ran.returncode == 0, ran.stderr

    assert result.get(timeout=1) == 3
    assert wrong.state == "PENDING"


# -- running and ending ----------------------------------------------------------------------------------


def test_the_banner_says_what_the_worker_does(jobs: Write, start_worker: Start, session_server: Server) -> None:
    module = jobs(ADD + HANG.replace("app.task", "app.task(queue='slow')"))
    worker = start_worker("-c", "2", "-n", "number-one")
    wait_until(lambda: "tasks " in worker.log, "the banner is shown")

    assert worker.log.split("\n", 6)[:6] == [
        "taskq worker number-one",
        f"  app          {module.app.name}",
        f"  broker       {session_server.url}",
        "  concurrency  2 processes",
        "  queues       jobs.add, slow",
        "  tasks        jobs.add, jobs.hang",
    ]


@pytest.mark.parametrize("number", [15, 2])
def test_an_idle_worker_ends_at_once_with_exit_code_0(jobs: Write, start_worker: Start, number: int) -> None:
    module = jobs(ADD)
    worker = start_worker("-c", "2")
    assert module.add.delay(1, 2).get(timeout=30) == 3

    assert worker.stop(number, seconds=5) == 0


def test_a_task_that_outlasts_the_grace_goes_back_and_the_exit_code_is_1(
    jobs: Write, start_worker: Start, tmp_path: Path
) -> None:
    module = jobs(HANG)
    result = module.hang.delay()
    worker = start_worker("-c", "1", "--grace", "0.1")
    wait_until((tmp_path / "running").exists, "it runs")

    assert worker.stop() == 1
    assert result.state == "PENDING"
    assert survey(module.app)["jobs.hang"].pending == 1


@pytest.mark.parametrize("option", ["--drain", "--once"])
def test_drain_runs_what_there_is_and_ends(jobs: Write, taskq: Run, option: str) -> None:
    module = jobs(ADD)
    results = module.add.delay_many([(n, n) for n in range(300)])

    ran = taskq("worker", "-A", "jobs", "-c", "2", option)

    assert ran.returncode == 0
    assert [result.get(timeout=1) for result in results] == [2 * n for n in range(300)]


def test_drain_of_empty_queues_ends_at_once(jobs: Write, taskq: Run) -> None:
    jobs(ADD)

    assert taskq("worker", "-A", "jobs", "-c", "1", "--drain", seconds=10).returncode == 0


def test_only_the_queues_asked_for_are_served(jobs: Write, taskq: Run) -> None:
    module = jobs(ADD)
    there, elsewhere = module.add.apply_async((1, 1), queue="special"), module.add.delay(2, 2)

    assert taskq("worker", "-A", "jobs", "-c", "1", "-Q", "special", "--drain").returncode == 0

    assert there.get(timeout=1) == 2
    assert elsewhere.state == "PENDING"


def test_the_banner_lists_the_tasks_of_the_queues_that_are_served(jobs: Write, taskq: Run) -> None:
    module = jobs(ADD + HANG.replace("app.task", "app.task(queue='slow')"))
    module.add.apply_async((1, 1), queue="urgent").revoke()

    slow = taskq("worker", "-A", "jobs", "-c", "1", "-Q", "slow", "--drain")
    urgent = taskq("worker", "-A", "jobs", "-c", "1", "-Q", "urgent", "--drain")

    assert "  tasks        jobs.hang\n" in slow.stderr
    assert "  concurrency  1 process\n" in slow.stderr
    assert "no task of app" not in slow.stderr
    assert "  tasks        whatever is sent there\n" in urgent.stderr
    assert f"no task of app {module.app.name} has queue urgent: here comes what is sent with" in urgent.stderr


def test_a_queue_that_looks_like_a_slip_is_told_with_the_nearest_one(jobs: Write, taskq: Run) -> None:
    module = jobs(ADD)

    slip = taskq("worker", "-A", "jobs", "-c", "1", "-Q", "jobs.ad", "--drain")
    new = taskq("worker", "-A", "jobs", "-c", "1", "-Q", "jobs.add,urgent", "--drain")

    assert slip.returncode == 2
    assert f"-Q jobs.ad: no task of app {module.app.name} has queue jobs.ad, and nothing" in slip.stderr
    assert "did you mean jobs.add?" in slip.stderr
    assert new.returncode == 0
    assert "warning: no task of app " in new.stderr


def test_a_queue_that_is_no_name_is_wrong_usage(jobs: Write, taskq: Run) -> None:
    jobs(ADD)

    ran = taskq("worker", "-A", "jobs", "-Q", "a b")

    assert ran.returncode == 2
    assert "queue 'a b' is not a name" in ran.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [(["-c", "0"], "--concurrency '0'"), (["-c", "many"], "or auto"), (["--autoscale", "4,2"], "--autoscale '4,2'")],
)
def test_numbers_that_cannot_work_are_refused(jobs: Write, tmp_path: Path, options: list[str], said: str) -> None:
    jobs(ADD)

    done = subprocess.run(
        [sys.executable, "-m", "taskq", "worker", "-A", "jobs", *options], cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == 2
    assert said in done.stderr
