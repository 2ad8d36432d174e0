"""``taskq ps``, ``workers``, ``ls``, ``ping``, ``quiet``, ``stop``, ``purge``, ``audit``, ``limit``: real workers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from taskq.broker.call import Command
from tests.cli.conftest import Ran
from tests.cli.lost import publish
from tests.support import Server, Start, Worker, Write, survey, wait_until

Run = Callable[..., Ran]

JOBS = """
HERE = os.path.dirname(os.path.abspath(__file__))

def until(name):
    deadline = time.monotonic() + 60
    while not os.path.exists(os.path.join(HERE, name)):
        assert time.monotonic() < deadline
        time.sleep(0.01)

@app.task(show_args=["user"], max_concurrency=2)
def charge(user, card, go="go"):
    open(os.path.join(HERE, f"began-{user}"), "w").close()
    until(go)

@app.task(show_args=True)
async def mail(to, *rest, go="go", **more):
    while not os.path.exists(os.path.join(HERE, go)):
        await asyncio.sleep(0.01)

@app.task(queue="office", show_args=[])
def bill(n):
    until("go")

@app.task
def quick(n):
    return n
"""


@pytest.fixture
def module(jobs: Write) -> ModuleType:
    made = jobs(JOBS, settings="lease=3")
    publish(made.app)
    return made


@pytest.fixture
def run(quick: Run, module: ModuleType) -> Run:
    """A command for the module's app; it must succeed unless told otherwise."""

    def call_it(*words: str, code: int = 0) -> Ran:
        ran = quick(*words, "--name", module.app.name)
        assert ran.returncode == code, f"{ran.stdout}{ran.stderr}"
        return ran

    return call_it


@pytest.fixture
def listed(run: Run) -> Callable[..., list[dict[str, Any]]]:
    """What a command says with ``--json``."""
    return lambda *words: [json.loads(line) for line in run(*words, "--json").stdout.splitlines()]


Listed = Callable[..., list[dict[str, Any]]]


def let_go(folder: Path) -> None:
    (folder / "go").touch()


def raw(module: ModuleType, word: bytes, key: str, *more: Any) -> Any:
    app = module.app
    return app.client.broker.run(Command(None, [word, app.client.keys[key], *more], lambda reply: reply))


# -- ps ------------------------------------------------------------------------------------------------------


def test_ps_shows_what_runs_where_and_since_when_the_longest_first(
    module: ModuleType, listed: Listed, run: Run, start_worker: Start, tmp_path: Path
) -> None:
    first = module.charge.delay("ann", "4111 1111")
    worker = start_worker("-n", "one", "-c", "1")
    wait_until(lambda: len(listed("ps")) == 1, "it runs")
    second = module.mail.delay("bob", 1, cc="eve")
    wait_until(lambda: len(listed("ps")) == 2, "both run")

    found = listed("ps")

    assert [one["id"] for one in found] == [first.id, second.id]
    assert [(one["task"], one["queue"], one["worker"], one["lane"]) for one in found] == [
        ("jobs.charge", "jobs.charge", "one", "main"),
        ("jobs.mail", "jobs.mail", "one", "loop"),
    ]
    assert {one["pid"] for one in found} == set(worker.children())
    assert found[0]["seconds"] >= found[1]["seconds"] > 0
    table = run("ps").stdout
    assert first.id in table
    assert "2 running messages at" in run("ps").stderr
    let_go(tmp_path)
    wait_until(lambda: not listed("ps"), "both have ended")


def test_ps_shows_those_arguments_only_that_the_task_lets_be_shown(
    module: ModuleType, listed: Listed, run: Run, start_worker: Start
) -> None:
    start_worker("-c", "2")
    module.charge.delay("ann", card="4111 1111")
    module.mail.delay("bob", 1, cc="eve\x1b[31m")
    module.bill.delay(7)
    wait_until(lambda: len(listed("ps")) == 3, "all run")

    args = {one["task"]: one["args"] for one in listed("ps")}

    assert args == {
        "jobs.charge": {"user": "'ann'"},
        "jobs.mail": {"to": "'bob'", "*1": "1", "cc": "'eve\\x1b[31m'"},
        "jobs.bill": {},
    }
    table = run("ps").stdout
    assert "user='ann'" in table
    assert "4111" not in table
    assert "\x1b" not in table


def test_ps_says_so_of_a_worker_that_gives_no_sign_of_life(
    module: ModuleType, run: Run, listed: Listed, start_worker: Start
) -> None:
    worker = start_worker("-n", "frozen", "-c", "1")
    module.charge.delay("ann", "")
    wait_until(lambda: len(listed("ps")) == 1, "it runs")

    os.killpg(worker.process.pid, signal.SIGSTOP)
    wait_until(lambda: "no sign of life: its lease ended" in run("ps").stdout, "its lease has ended")

    assert run("ping", "frozen", code=1).stderr.count("has given no sign of life: its lease ended") == 1
    os.killpg(worker.process.pid, signal.SIGCONT)


def test_ps_filters_by_names_and_refuses_unknown_ones(
    module: ModuleType, listed: Listed, run: Run, start_worker: Start
) -> None:
    start_worker("-n", "one", "-c", "2")
    module.charge.delay("ann", "")
    module.bill.delay(1)
    wait_until(lambda: len(listed("ps")) == 2, "both run")

    assert [one["task"] for one in listed("ps", "--queue", "office")] == ["jobs.bill"]
    assert [one["task"] for one in listed("ps", "--task", "jobs.charge")] == ["jobs.charge"]
    assert len(listed("ps", "--worker", "one")) == 2
    assert listed("ps", "--task", "jobs.quick") == []
    assert "has no task 'jobs.charg'; did you mean jobs.charge" in run("ps", "--task", "jobs.charg", code=2).stderr
    assert "has no live worker 'on'; did you mean one?" in run("ps", "--worker", "on", code=2).stderr


# -- workers and ping ----------------------------------------------------------------------------------------


def test_workers_shows_how_each_is_and_what_it_holds(
    module: ModuleType, listed: Listed, run: Run, start_worker: Start, tmp_path: Path
) -> None:
    module.charge.delay("ann", "")
    worker = start_worker("-n", "one", "-c", "2")
    wait_until(lambda: len(listed("ps")) == 1 and begun(listed, lanes=4), "it runs, and the worker has reported")

    (one,) = listed("workers")

    assert (one["worker"], one["pid"], one["version"]) == ("one", worker.process.pid, "0.1.0")
    assert one["queues"] == ["jobs.charge", "jobs.mail", "jobs.quick", "office"]
    assert one["memory"] > 10 << 20
    assert {child["pid"] for child in one["children"]} == set(worker.children())
    lanes = [lane for child in one["children"] for lane in child["lanes"]]
    assert sorted((lane["lane"], lane["holds"]) for lane in lanes) == [
        ("loop", 0),
        ("loop", 0),
        ("main", 0),
        ("main", 1),
    ]
    lines = run("workers", "one").stdout.splitlines()
    assert lines[0].split()[:4] == ["CHILD", "PID", "LANE", "INCARNATION"]
    assert len(lines) == 1 + 4
    let_go(tmp_path)
    assert worker.stop() == 0
    assert listed("workers") == [], "it has said that it goes"


def test_two_workers_of_one_name_are_two_lines(module: ModuleType, listed: Listed, start_worker: Start) -> None:
    workers = [start_worker("-n", "same", "-c", "1") for _ in range(2)]

    wait_until(
        lambda: sorted(one["pid"] or 0 for one in listed("workers")) == sorted(w.process.pid for w in workers),
        "both have reported",
    )


def test_a_report_that_cannot_be_read_hides_no_other_worker(module: ModuleType, listed: Listed) -> None:
    far = 4_000_000_000_000
    for name, text in ((b"bad", b"\xc1"), (b"odd", b"\x81\x01\x02"), (b"good", b"\x81\xa4name\xa3one")):
        raw(module, b"HSET", "fleet", name, text)
        raw(module, b"ZADD", "fleet-ends", far, name)

    assert [one["worker"] for one in listed("workers")] == ["one"]


def test_ping_says_whether_the_server_answers_and_the_worker_lives(
    module: ModuleType, run: Run, start_worker: Start, taskq: Run
) -> None:
    assert "answers in" in run("ping").stdout
    assert "worker one is not there" in run("ping", "one", code=1).stderr

    start_worker("-n", "one", "-c", "1")
    wait_until(lambda: run_quietly(run, "ping", "one"), "it lives")

    told = json.loads(run("ping", "one", "--json").stdout)
    assert (told["worker"], told["alive"]) == ("one", True)
    assert "did you mean one?" in run("ping", "onee", code=1).stderr
    assert taskq("ping", "--timeout", "0.3", url="redis://localhost:1").returncode == 2
    assert taskq("ping", "--timeout", "0").returncode == 2


def run_quietly(run: Run, *words: str) -> bool:
    try:
        run(*words)
    except AssertionError:
        return False
    return True


# -- quiet and stop ------------------------------------------------------------------------------------------


def begun(listed: Listed, lanes: int = 1) -> bool:
    """Whether a worker has reported, and so many lanes of its children are there."""
    found = listed("workers")
    return any(one["state"] and sum(len(child["lanes"]) for child in one["children"]) >= lanes for one in found)


def test_a_quiet_worker_ends_what_it_runs_and_takes_no_more(
    module: ModuleType, run: Run, listed: Listed, start_worker: Start, tmp_path: Path
) -> None:
    worker = start_worker("-n", "one", "-c", "2")
    running = module.charge.delay("ann", "")
    wait_until(lambda: (tmp_path / "began-ann").exists() and begun(listed), "it runs")

    assert "told worker one" in run("quiet", "one").stdout
    wait_until(lambda: listed("workers")[0]["state"] == "quiet", "it is quiet")
    wait_until(lambda: len(worker.children()) == 1, "the idle child has ended")
    later = module.quick.delay(1)
    let_go(tmp_path)
    running.get(timeout=20)
    wait_until(lambda: not worker.children(), "the other one too")

    assert later.status().state == "PENDING"
    assert worker.process.poll() is None
    run("ping", "one")
    wait_until(lambda: "No live worker serves" in later.why(), "nobody believes that it serves its queues")
    assert "told worker one" in run("stop", "one").stdout
    assert worker.process.wait(20) == 0
    second = start_worker("-n", "one", "-c", "1")
    assert later.get(timeout=20) == 1
    assert second.stop() == 0


def test_a_worker_is_stopped_as_by_a_signal(
    module: ModuleType, run: Run, listed: Listed, start_worker: Start, tmp_path: Path
) -> None:
    worker = start_worker("-n", "one", "-c", "1", "--grace", "20")
    running, waits = module.charge.delay("ann", ""), module.charge.delay("bob", "")
    wait_until(lambda: (tmp_path / "began-ann").exists() and begun(listed), "it runs")

    assert run("stop", "one", "--dry-run").stdout.startswith("would tell worker one")
    assert worker.process.poll() is None
    run("stop", "one")
    wait_until(lambda: listed("workers")[0]["state"] == "stopping", "it stops")
    let_go(tmp_path)

    assert worker.process.wait(20) == 0
    assert running.status().state == "SUCCESS"
    assert waits.status().state == "PENDING"
    assert "has no live worker 'one'" in run("stop", "one", code=2).stderr


def test_a_suspect_is_left_to_others_by_a_quiet_worker(
    module: ModuleType, run: Run, listed: Listed, start_worker: Start, tmp_path: Path
) -> None:
    quiet = start_worker("-n", "quiet", "-c", "1")
    wait_until(lambda: begun(listed), "it is there")
    run("quiet", "quiet")
    wait_until(lambda: not quiet.children(), "it has no children")

    other = start_worker("-n", "other", "-c", "1")
    handle = module.charge.delay("ann", "")
    wait_until((tmp_path / "began-ann").exists, "it runs")  # not before: what was only taken is no suspect
    os.kill(listed("ps")[0]["pid"], signal.SIGKILL)

    wait_until(lambda: any(one["alone"] for one in listed("ps")), "it runs alone")
    assert listed("ps")[0]["worker"] == "other"
    assert not quiet.children()
    assert handle.status().state == "STARTED"
    assert other.process.poll() is None


def test_a_worker_of_a_version_that_takes_no_orders_is_said_to_be_so(module: ModuleType, run: Run) -> None:
    from taskq.broker.commands import holding
    from taskq.broker.queue_set import QueueSet
    from taskq.views.workers import WorkerInfo

    old = WorkerInfo(worker="old", host="far", pid=7, child=0, queues=["office"]).stored()
    keys = module.app.client.keys
    module.app.client.broker.run(holding.register(keys, "inc", 60_000, old, QueueSet.of(["office"])))

    assert "worker old is of a version that takes no orders" in run("stop", "old", code=2).stderr
    assert "have the pids 7" in run("quiet", "old", code=2).stderr


def test_a_word_that_a_worker_does_not_know_does_not_harm_it(
    module: ModuleType, run: Run, listed: Listed, start_worker: Start
) -> None:
    worker = start_worker("-n", "one", "-c", "1")
    wait_until(lambda: begun(listed), "it is there")
    (name,) = raw(module, b"HKEYS", "fleet")

    raw(module, b"RPUSH", f"orders:{name.decode()}", b"dance\xff")

    wait_until(lambda: "this version does not know that order" in worker.log, "it says so")
    assert module.quick.delay(3).get(timeout=20) == 3


def test_a_key_of_a_wrong_type_in_the_place_of_its_orders_does_not_harm_a_worker(
    module: ModuleType, run: Run, listed: Listed, start_worker: Start
) -> None:
    worker = start_worker("-n", "one", "-c", "1")
    wait_until(lambda: begun(listed), "it is there")
    (name,) = raw(module, b"HKEYS", "fleet")
    raw(module, b"SET", f"orders:{name.decode()}", "an operator's hand")

    assert module.quick.delay(3).get(timeout=20) == 3
    assert run("stop", "one", code=2).stderr.startswith("taskq: ")
    raw(module, b"DEL", f"orders:{name.decode()}")
    run("stop", "one")
    assert worker.process.wait(20) == 0


# -- ls and purge --------------------------------------------------------------------------------------------


def test_ls_lists_a_page_of_what_waits(module: ModuleType, run: Run, listed: Listed) -> None:
    handles = module.quick.delay_many([(n,) for n in range(250)])

    found = listed("ls", "jobs.quick", "-n", "120", "--skip", "100")

    assert [one["id"] for one in found] == [handle.id for handle in handles[100:220]]
    assert [one["number"] for one in found[:2]] == [101, 102]
    assert {one["task"] for one in found} == {"jobs.quick"}
    shown = run("ls", "jobs.quick", "-n", "3")
    assert len(shown.stdout.splitlines()) == 1 + 3
    assert f"3 messages of 250 that wait in queue jobs.quick of app {module.app.name}" in shown.stderr


def test_ls_of_an_empty_queue_is_empty_and_of_an_unknown_one_an_error(run: Run) -> None:
    assert run("ls", "jobs.quick").stdout == ""
    assert "has no queue 'jobs.quik'; did you mean jobs.quick" in run("ls", "jobs.quik", code=2).stderr
    assert run("ls", "no such name", code=2).stderr.startswith("taskq: ")
    for words in (("-n", "0"), ("-n", "10001"), ("--skip", "-1")):
        assert run("ls", "jobs.quick", *words, code=2).stdout == ""


def test_ls_shows_what_cannot_be_read(module: ModuleType, listed: Listed) -> None:
    module.quick.delay(1)
    raw(module, b"HSET", "messages", b"bad", b"\x00nonsense")
    raw(module, b"RPUSH", "queue:jobs.quick", b"bad", b"gone")

    assert [(one["task"], one["age"] is None) for one in listed("ls", "jobs.quick")] == [
        ("jobs.quick", False), ("?", True), (None, True),
    ]  # fmt: skip


def test_purge_asks_and_deletes_what_waits(module: ModuleType, run: Run, taskq: Run) -> None:
    module.quick.delay_many([(n,) for n in range(1203)])
    module.quick.apply_async((1,), countdown=600)
    name = module.app.name

    assert (
        run("purge", "jobs.quick", "--dry-run").stdout
        == f"would purge 1,203 messages from queue jobs.quick of app {name}\n"
    )
    refused = taskq("purge", "jobs.quick", "--name", name, typed="n\n")
    assert (refused.returncode, survey(module.app)["jobs.quick"].pending) == (1, 1203)
    assert taskq("purge", "jobs.quick", "--name", name).returncode == 2, "nobody answers"
    assert run("purge", "jobs.quick", "--yes").stdout == f"purged 1,203 messages from queue jobs.quick of app {name}\n"

    there = survey(module.app)["jobs.quick"]
    assert (there.pending, there.scheduled, there.counters["purged"], there.balance) == (0, 1, 1203, 0)
    assert run("purge", "jobs.quick", "--yes").stdout.startswith("purged 0 messages")
    assert "did you mean jobs.quick" in run("purge", "jobs.quik", "--yes", code=2).stderr


# -- queues, limit, audit ------------------------------------------------------------------------------------


def test_queues_tells_the_rate_since_about_a_minute(module: ModuleType, listed: Listed) -> None:
    module.quick.delay_many([(n,) for n in range(90)])
    assert listed("queues")[0]["rate"] is None, "nobody has looked before"
    seconds = int(module.app.client.broker.run(Command(None, [b"TIME"], lambda reply: reply[0])))
    raw(module, b"HSET", "minute:1", b"=", seconds * 1000 - 5_000, b"jobs.quick|accepted", 89)
    raw(module, b"HSET", "minute:2", b"=", seconds * 1000 - 60_000, b"jobs.quick|accepted", 30)
    raw(module, b"HINCRBY", "counters", b"jobs.quick|done", 0)

    (row,) = listed("queues")

    assert row["rate_in"] == pytest.approx(1.0, abs=0.1), "five seconds would tell too little"
    assert row["rate"] == 0


def test_queues_names_the_workers_that_serve_each(module: ModuleType, listed: Listed, start_worker: Start) -> None:
    module.charge.delay("ann", "")
    start_worker("-n", "one", "-c", "1", "-Q", "office")
    start_worker("-n", "two", "-c", "1")
    wait_until(lambda: len(listed("workers")) == 2 and begun(listed), "both are there")
    wait_until(lambda: len(listed("ps")) == 1, "it runs")

    (row,) = listed("queues")

    assert (row["workers"], row["served"], row["processing"], row["missing"]) == (["two"], True, 1, 0)


def test_limit_says_which_messages_hold_the_slots(
    module: ModuleType, run: Run, listed: Listed, start_worker: Start
) -> None:
    start_worker("-c", "3")
    handles = module.charge.delay_many([(n, "") for n in range(3)])
    wait_until(lambda: len(listed("ps")) == 2, "two run")

    (told,) = listed("limit", "jobs.charge")

    assert told["holds"] == [{"kind": "limit", "rate": None, "burst": None, "max_concurrency": 2, "each_key": False}]
    (used,) = told["in_use"]
    assert (used["limit"], used["key"], used["used"], used["slots"]) == (1, None, 2, 2)
    assert set(used["ids"]) == {one["id"] for one in listed("ps")} < {handle.id for handle in handles}
    assert "limit 1: 2 of 2 in use, by " in run("limit", "jobs.charge").stdout


def test_audit_mends_now_and_says_when_it_was_last(module: ModuleType, run: Run, listed: Listed) -> None:
    name = module.app.name
    assert run("audit", "--last").stdout == f"{name}: no audit has been made yet\n"
    handle = module.quick.delay(1)
    raw(module, b"DEL", "queue:jobs.quick")

    text = run("audit").stdout
    (then,) = listed("audit", "--last")
    (now,) = listed("audit")

    assert "ago by " in text
    assert sum(then["mended"].values()) >= 1
    assert then["mended"] == then["mended_then"] == now["mended_then"]
    assert now["mended"] == {}
    assert then["at"] == then["mended_at"] == now["mended_at"] < now["at"]
    assert handle.status().state == "PENDING"
    assert survey(module.app)["jobs.quick"].pending == 1


def test_an_audit_of_before_that_cannot_be_read_is_as_if_there_was_none(module: ModuleType, run: Run) -> None:
    raw(module, b"SET", "audit", b"\x81\xa3new\x01")

    assert "no audit has been made yet" in run("audit", "--last").stdout
    assert "the last audit was" in run("audit").stdout


# -- what all share ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "key"),
    [
        *((("ps",), "leases"), (("workers",), "fleet"), (("workers",), "fleet-ends"), (("audit", "--last"), "audit")),
        *((("queues",), "minute:1"), (("queues",), "workers"), (("queues",), "queue:jobs.quick")),
        *((("limit", "jobs.charge"), "slots"), (("purge", "jobs.quick", "--yes"), "ranked:jobs.quick")),
        *((("ls", "jobs.quick"), "ranked:jobs.quick"),),
    ],
)  # fmt: skip
def test_a_key_of_a_wrong_type_is_named_and_no_traceback(
    module: ModuleType, run: Run, words: tuple[str, ...], key: str
) -> None:
    module.quick.delay_many([(n,) for n in range(3)])
    raw(module, b"DEL", key)
    raw(module, b"SADD", key, b"an operator's hand")

    ran = run(*words, code=2)

    assert ran.stderr.startswith("taskq: ")
    assert "WRONGTYPE" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert raw(module, b"HLEN", "messages") == 3


def test_no_app_is_no_worker_and_no_error(taskq: Run, own_server: Server) -> None:
    for words in (("ps",), ("workers",), ("queues",), ("audit",)):
        ran = taskq(*words, url=own_server.url)
        assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


def test_the_beginning_of_a_long_list_may_be_enough(module: ModuleType, taskq: Run, tmp_path: Path) -> None:
    """``taskq ls ... | head -1``: whoever reads has gone, which is no error to be shown."""
    import subprocess
    import sys

    module.quick.delay_many([(n,) for n in range(5000)])
    url = module.app.client.url
    command = f"{sys.executable} -m taskq ls jobs.quick -n 5000 --json --name {module.app.name} --url {url} | head -1"

    ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=30)

    assert json.loads(ran.stdout)["number"] == 1
    assert "Traceback" not in ran.stderr


def test_the_completion_of_each_shell_is_printed(taskq: Run) -> None:
    for shell, sign in (("bash", "complete -o nosort"), ("zsh", "#compdef taskq"), ("fish", "complete --no-files")):
        ran = taskq("completion", shell)
        assert (ran.returncode, sign in ran.stdout) == (0, True), ran.stderr
    assert taskq("completion", "tcsh").returncode == 2


def test_the_completion_knows_commands_and_options(tmp_path: Path) -> None:
    import subprocess
    import sys

    def completed(words: str, at: int) -> list[str]:
        environ = {**os.environ, "_TASKQ_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        program = "from taskq.cli import main; main(prog_name='taskq')"
        ran = subprocess.run([sys.executable, "-c", program], env=environ, cwd=tmp_path, capture_output=True, text=True)
        return [line.partition(",")[2] for line in ran.stdout.splitlines()]

    assert {"workers", "worker"} <= set(completed("taskq wor", 1))
    assert "--worker" in completed("taskq ps --w", 2)
    assert completed("taskq completion z", 2) == ["zsh"]


def test_processes_are_named_where_setproctitle_is_installed(
    module: ModuleType, listed: Listed, start_worker: Start
) -> None:
    pytest.importorskip("setproctitle")
    worker: Worker = start_worker("-n", "one", "-c", "2")
    wait_until(lambda: begun(listed), "it is there")

    def title(pid: int) -> str:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()

    assert title(worker.process.pid) == "taskq worker one: parent"
    wait_until(
        lambda: sorted(map(title, worker.children())) == [f"taskq worker one: child {n}" for n in (0, 1)],
        "the children say which they are",
    )
