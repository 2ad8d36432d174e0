"""An app of several partitions on one server: all there is works over all of them; one number holds for everybody."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from taskq import BrokerRefused, ConfigError, DuplicateTaskId, ResultTimeout, TaskError, TaskQ, TaskRevoked
from taskq.broker.call import Command
from taskq.broker.commands import looking
from taskq.broker.commands.holding import QueueSet
from taskq.broker.net.connection import Connection
from taskq.broker.onward import carry_all
from taskq.broker.protocol import Protocol, drive
from taskq.broker.topology import topology
from taskq.message.ids import id_from_text, id_partition
from taskq.steering.letters import replay
from taskq.upkeep import housekeeping
from taskq.upkeep.audit import audit, queues_of
from taskq.views.audits import last_audit
from taskq.views.letters import DeadLetter, Filters, Graveyard
from taskq.worker.parent.drained import left_over
from taskq.worker.plan import Plan
from tests.support import Server, Start, Write, new_app, survey, wait_until

#: Of four partitions: a queue in each.
QUEUES = ("q0", "q4", "q1", "q5")

TASKS = """
LOG = os.open(os.path.join(os.path.dirname(__file__), "runs.log"), os.O_APPEND | os.O_CREAT | os.O_WRONLY)

def work(i, seconds=0.0):
    os.write(LOG, f"{i}\\n".encode())
    time.sleep(seconds)
    return i

async def awork(i, seconds=0.0):
    await asyncio.sleep(seconds)
    return i

zero = app.task(name="zero", queue="q0")(work)
one = app.task(name="one", queue="q4")(work)
two = app.task(name="two", queue="q1")(awork)
three = app.task(name="three", queue="q5", max_retries=0)(work)

@app.task(queue="q4", max_retries=0)
def fails():
    raise ValueError("no")

@app.task(queue="q1", max_concurrency=1)
def limited():
    pass
"""


@pytest.fixture
def module(jobs: Write) -> ModuleType:
    """Tasks in queues of all four partitions."""
    return jobs(TASKS, settings="partitions=4")


def tasks(module: ModuleType) -> list[object]:
    return [module.zero, module.one, module.two, module.three]


@contextmanager
def worker_for_a_moment(module: ModuleType, start_worker: Start) -> Iterator[list[str]]:
    """A worker that has been there and done something; gives the words by which commands find its app."""
    worker = start_worker("-c", "1")
    assert module.three.delay(1).get(timeout=20) == 1
    yield ["--name", module.app.name]
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(20)


def test_queues_lie_where_their_names_say(module: ModuleType) -> None:
    partitions = module.app.client.partitions

    assert [partitions.of(queue).partition for queue in QUEUES] == [0, 1, 2, 3]


def test_one_worker_runs_what_is_in_all_partitions(module: ModuleType, start_worker: Start) -> None:
    calls = [tasks(module)[i % 4].call(i) for i in range(400)]  # type: ignore[attr-defined]
    results = module.app.enqueue_many(calls)
    start_worker("-c", "2")

    assert [result.get(timeout=30) for result in results] == list(range(400))
    assert [id_partition(id_from_text(result.id)) for result in results] == [i % 4 for i in range(400)]
    ledger = survey(module.app)
    assert {queue: ledger[queue].counters["done"] for queue in QUEUES} == dict.fromkeys(QUEUES, 100)
    assert all(queue.balance == 0 for queue in ledger.values())


def test_an_idle_worker_hears_the_bell_of_any_partition(module: ModuleType, start_worker: Start) -> None:
    start_worker("-c", "1")
    for task in tasks(module):
        task.delay(0).get(timeout=20)  # type: ignore[attr-defined]

    began = time.monotonic()
    for i in range(40):
        assert tasks(module)[i * 7 % 4].delay(i).get(timeout=20) == i  # type: ignore[attr-defined]

    assert time.monotonic() - began < 4, "none of them waited for a bell in vain"


def test_a_chosen_id_is_found_wherever_it_is_and_refused_again(module: ModuleType, start_worker: Start) -> None:
    result = module.three.apply_async((7,), task_id="order-7")
    assert result.status().state == "PENDING"
    assert "No live worker serves queue q5" in module.app.AsyncResult("order-7").why()
    with pytest.raises(DuplicateTaskId):
        module.three.apply_async((7,), task_id="order-7")

    start_worker("-c", "1")

    assert module.app.AsyncResult("order-7").get(timeout=20) == 7


@pytest.mark.parametrize("n", range(4))
def test_a_chosen_id_is_found_in_every_partition_by_all_that_look_for_it(
    module: ModuleType, session_server: Server, start_worker: Start, n: int
) -> None:
    with worker_for_a_moment(module, start_worker) as name:
        pass  # commands know the app by now
    text = "018f0000-0000-7000-8000-00000000000" + str(n)  # a UUID, which says: partition 0
    tasks(module)[n].apply_async((7,), countdown=3600, task_id=text)  # type: ignore[attr-defined]

    async def look() -> None:
        result = module.app.AsyncResult(text)
        assert (await result.astatus()).state == "PENDING"
        assert "scheduled" in (await result.awhy()).lower()
        with pytest.raises(ResultTimeout):
            await result.aget(timeout=0.1)
        await module.app.aclose()

    asyncio.run(look())
    with pytest.raises(ResultTimeout):
        module.app.AsyncResult(text).get(timeout=0.1)
    assert "scheduled" in taskq(session_server.url, "why", text, *name).stdout.lower()
    assert "revoked" in taskq(session_server.url, "revoke", text, *name).stdout
    with pytest.raises(TaskRevoked):
        module.app.AsyncResult(text).get(timeout=5)


def test_of_two_calls_with_one_id_in_two_partitions_both_run_and_the_lowest_is_found(
    module: ModuleType, start_worker: Start
) -> None:
    start_worker("-c", "1")
    module.three.apply_async((3,), task_id="twice")
    module.one.apply_async((1,), task_id="twice")
    wait_until(lambda: sum(queue.counters.get("done", 0) for queue in survey(module.app).values()) == 2, "both run")

    found = module.app.AsyncResult("twice")
    assert found.get(timeout=5) == 1
    found.forget()
    assert module.app.AsyncResult("twice").get(timeout=5) == 3


def test_what_is_sent_at_once_to_several_partitions_is_answered_in_order(module: ModuleType) -> None:
    module.one.apply_async((1,), task_id="used")

    with pytest.raises(DuplicateTaskId, match=r"'used'.*1 of 4 calls"):
        module.app.enqueue_many(
            [
                module.zero.call(1),
                module.one.prepare_call((1,), task_id="used"),
                module.two.call(1),
                module.zero.call(2),  # goes with the first, before those between them
            ]
        )

    assert {queue: survey(module.app)[queue].pending for queue in QUEUES[:3]} == {"q0": 2, "q4": 1, "q1": 1}


def test_limits_do_not_reach_into_another_partition_so_such_a_call_is_refused(module: ModuleType) -> None:
    with pytest.raises(ConfigError, match=r"queue='q0'.* partition 0 .*partition 2"):
        module.limited.apply_async(queue="q0")

    module.zero.apply_async((1,), queue="q5")


def test_a_task_is_paused_and_resumed_in_all_partitions(module: ModuleType, start_worker: Start) -> None:
    start_worker("-c", "1")
    module.app.pause(module.fails)
    own, elsewhere = module.fails.delay(), module.fails.apply_async(queue="q5")
    assert [module.three.delay(i).get(timeout=20) for i in range(3)] == [0, 1, 2]
    assert "paused" in elsewhere.why()
    assert [own.state, elsewhere.state] == ["PENDING", "PENDING"]

    module.app.resume(module.fails)

    for result in (own, elsewhere):
        with pytest.raises(TaskError, match="no"):
            result.get(timeout=20)


def test_calls_are_revoked_in_all_partitions(module: ModuleType, start_worker: Start) -> None:
    results = [task.delay(1) for task in tasks(module)]  # type: ignore[attr-defined]
    assert results[3].revoke() == "revoked"
    assert module.app.revoke_all(headers={"no": "such"}) == 0
    assert [module.app.revoke_all(queue=queue) for queue in QUEUES] == [1, 1, 1, 0]

    start_worker("-c", "1")

    for result in results:
        with pytest.raises(TaskRevoked):
            result.get(timeout=20)


def test_periodic_entries_tick_wherever_their_queue_is(jobs: Write, start_worker: Start) -> None:
    module = jobs(
        TASKS
        + "\nfor task in (zero, one, two, three):\n"
        + "    app.periodic(task.name, 'every 1s', task, (task.name,))\n",
        settings="partitions=4",
    )
    start_worker("-c", "1")

    def done() -> bool:
        ledger = survey(module.app)
        return all(queue in ledger and ledger[queue].counters.get("done", 0) >= 2 for queue in QUEUES)

    wait_until(done, "each has ticked twice")
    for keys, name in zip(module.app.client.partitions.all, ("zero", "one", "two", "three"), strict=True):
        command = Command(None, [b"HKEYS", keys["periodic"]], lambda reply: reply)
        assert module.app.client.broker.run(command) == [name.encode()]


def test_what_a_killed_worker_held_in_any_partition_runs_again(jobs: Write, start_worker: Start) -> None:
    module = jobs(TASKS, settings="partitions=4, lease=2")
    doomed = start_worker("-c", "4")
    results = [task.delay(i, 0.5) for i, task in enumerate(tasks(module) * 2)]  # type: ignore[attr-defined]
    wait_until(lambda: sum(queue.processing for queue in survey(module.app).values()) >= 4, "they run")
    doomed.kill_group()
    start_worker("-c", "2")

    assert [result.get(timeout=40) for result in results] == list(range(8))
    assert all(queue.balance == 0 for queue in survey(module.app).values())


def test_what_a_killed_child_held_runs_again_at_once(module: ModuleType, start_worker: Start, tmp_path: Path) -> None:
    worker = start_worker("-c", "1")
    result = module.one.delay(1, 0.5)
    wait_until(lambda: (tmp_path / "runs.log").stat().st_size, "it runs")

    os.kill(worker.children()[0], signal.SIGKILL)

    assert result.get(timeout=10) == 1
    assert survey(module.app)["q4"].counters["crashes"] == 1


def test_a_drain_ends_when_all_partitions_are_empty(module: ModuleType, start_worker: Start) -> None:
    results = [task.delay(i) for i in range(10) for task in tasks(module)]  # type: ignore[attr-defined]
    worker = start_worker("-c", "2", "--drain")

    assert worker.process.wait(30) == 0
    assert [result.state for result in results] == ["SUCCESS"] * 40


# -- how many there are ----------------------------------------------------------------------------------


def test_another_number_is_refused_while_anything_is_there(session_server: Server) -> None:
    four = new_app(session_server.url, partitions=4)
    task = four.task(name="t", queue="q5")(print)
    task.delay()
    for number in (1, 2):
        other = TaskQ(four.name, session_server.url, partitions=number)
        with pytest.raises(ConfigError, match=rf"has 4 partitions at .* was told {number} .*1 x message"):
            other.task(name="t")(print).delay()
        other.close()
    four.close()


def a_dead_letter(module: ModuleType, start_worker: Start) -> None:
    with worker_for_a_moment(module, start_worker), pytest.raises(TaskError):
        module.fails.delay().get(timeout=20)


def a_pause(module: ModuleType, _start_worker: Start) -> None:
    module.app.pause("q5")


def a_limit(module: ModuleType, start_worker: Start) -> None:
    with worker_for_a_moment(module, start_worker) as name:
        assert taskq(module.app.client.url, "limit", "three", "--rate", "5/s", *name).returncode == 0


def a_worker(module: ModuleType, start_worker: Start) -> None:
    start_worker("-c", "1")
    assert module.three.delay(1).get(timeout=20) == 1


def an_entry(module: ModuleType, start_worker: Start) -> None:
    with worker_for_a_moment(module, start_worker) as name:
        assert taskq(module.app.client.url, "cron", "add", "nightly", "0 3 * * *", "three", *name).returncode == 0


@pytest.mark.parametrize(
    ("leave", "what"),
    [
        (a_dead_letter, "1 x message"),
        (a_pause, "1 x pause"),
        (a_limit, "1 x task with limits set by hand"),
        (a_worker, r"\d x lane of a worker"),
        (an_entry, "1 x periodic entry"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("number", [1, 8])
def test_what_another_number_would_lose_keeps_it_from_being_changed(
    module: ModuleType, start_worker: Start, leave: Callable[[ModuleType, Start], None], what: str, number: int
) -> None:
    leave(module, start_worker)
    other = TaskQ(module.app.name, module.app.client.url, partitions=number)

    with pytest.raises(ConfigError, match=rf"has 4 partitions at .* was told {number} .*such as {what}:"):
        other.AsyncResult("x").status()

    other.close()


def test_an_app_without_anything_takes_another_number(session_server: Server) -> None:
    four = new_app(session_server.url, partitions=4)
    assert four.AsyncResult("x").state == "UNKNOWN"  # it has been there, and said so
    one = TaskQ(four.name, session_server.url)
    one.task(name="t", queue="q5")(print).delay()

    with pytest.raises(ConfigError, match=r"has 1 partition at .* was told 4"):
        TaskQ(four.name, session_server.url, partitions=4).AsyncResult("x").status()
    four.close()
    one.close()


def test_a_worker_with_another_number_does_not_start(module: ModuleType, session_server: Server) -> None:
    module.three.delay(1)
    environment = os.environ | {"TASKQ_URL": session_server.url, "TASKQ_PARTITIONS": "1"}
    code = f"import taskq; app = taskq.TaskQ({module.app.name!r}); app.task(name='t')(print)\n"
    folder = os.path.dirname(str(module.__file__))
    with open(os.path.join(folder, "other.py"), "w") as file:
        file.write(code)
    ran = subprocess.run(
        [sys.executable, "-m", "taskq", "worker", "-A", "other"],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=30,
    )  # fmt: skip

    assert ran.returncode == 2, ran.stderr
    assert "has 4 partitions" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_spoilt_key_of_the_settings_keeps_no_producer_from_sending(session_server: Server) -> None:
    app = new_app(session_server.url)
    with closing(Connection(session_server.url)) as connection:
        connection.execute(Command(None, [b"SET", app.client.keys["settings"], b"not a hash"], bool))

    app.task(name="t")(print).delay()

    assert survey(app)["t"].pending == 1
    app.close()


@pytest.mark.parametrize("number", [0, 4097, 1.5, True])
def test_a_number_that_cannot_be_is_refused(number: object) -> None:
    with pytest.raises(ConfigError, match="setting partitions"):
        TaskQ("app", partitions=number)  # type: ignore[arg-type]


# -- from one partition to another -----------------------------------------------------------------------


@pytest.fixture
def letter(module: ModuleType, start_worker: Start) -> DeadLetter:
    """A dead letter in queue q4, whose task is to have queue q5 from now on."""
    worker = start_worker("-c", "1")
    with pytest.raises(TaskError):
        module.fails.delay().get(timeout=20)
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(20)
    broker = module.app.client.broker
    graveyard = Graveyard([module.app.client.partitions], Filters(), broker.run(looking.server_time()))
    page = broker.perform(graveyard.next_page())
    assert page is not None
    return page[0]


class Killed(Exception):
    """Whoever did it is gone."""


def until_killed(steps: Protocol[object], calls: int, connection: Connection, executes: bool) -> None:
    """Drive a protocol until so many commands were sent; the last of them arrives, or does not."""
    try:
        step = next(steps)
        for n in range(calls):
            if n == calls - 1 and not executes:
                raise Killed
            assert isinstance(step, Command)
            step = steps.send(connection.execute(step))
    except StopIteration:
        return
    raise Killed


@pytest.mark.parametrize("executes", [False, True], ids=["unsent", "unanswered"])
@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_dead_letter_reaches_another_partition_once_wherever_its_carrier_dies(
    module: ModuleType, letter: DeadLetter, calls: int, executes: bool
) -> None:
    partitions, connection = module.app.client.partitions, Connection(module.app.client.url)
    try:
        until_killed(replay([letter], "q5"), calls, connection, executes)
    except Killed:
        pass
    drive(carry_all(partitions), connection)
    if calls == 1 and not executes:  # nothing had been said yet
        assert drive(replay([letter], "q5"), connection) == [True]
    assert drive(carry_all(partitions), connection) == 0
    connection.close()

    ledger = survey(module.app)
    assert (ledger["q4"].dead, ledger["q4"].counters["moved"], ledger["q4"].balance) == (0, 1, 0)
    assert (ledger["q5"].pending, ledger["q5"].counters["accepted"], ledger["q5"].balance) == (1, 1, 0)


def test_what_has_arrived_and_run_is_not_taken_for_new_when_it_is_carried_over_again(
    module: ModuleType, letter: DeadLetter, start_worker: Start
) -> None:
    broker, partitions = module.app.client.broker, module.app.client.partitions
    connection = Connection(module.app.client.url)
    with pytest.raises(Killed):
        until_killed(replay([letter], "q5"), 2, connection, executes=True)  # it has arrived, and nobody knows
    start_worker("-c", "1")
    wait_until(lambda: survey(module.app)["q5"].dead == 1, "it ran in its new queue, and failed again")
    broker.run(Command(None, [b"DEL", partitions.all[3][f"result:{letter.text_id}"]], int))

    drive(carry_all(partitions), connection)
    connection.close()

    ledger = survey(module.app)
    assert (ledger["q4"].dead, ledger["q5"].counters["accepted"], ledger["q5"].dead) == (0, 1, 1)


def test_a_letter_that_is_on_its_way_is_not_replayed_as_well(module: ModuleType, letter: DeadLetter) -> None:
    broker, connection = module.app.client.broker, Connection(module.app.client.url)
    with pytest.raises(Killed):
        until_killed(replay([letter], "q5"), 1, connection, executes=True)

    assert broker.perform(replay([letter])) == [False]
    assert broker.perform(replay([letter], "q5")) == [False]
    connection.close()


def test_a_letter_whose_id_is_in_use_there_stays_where_it_is(module: ModuleType, start_worker: Start) -> None:
    worker = start_worker("-c", "1", "-Q", "q4")
    with pytest.raises(TaskError):
        module.fails.apply_async(task_id="twice").get(timeout=20)
    module.three.apply_async((1,), task_id="twice")
    broker = module.app.client.broker
    graveyard = Graveyard([module.app.client.partitions], Filters(), broker.run(looking.server_time()))
    page = broker.perform(graveyard.next_page())

    assert page is not None
    assert broker.perform(replay(page, "q5")) == [None]
    assert survey(module.app)["q4"].dead == 1
    assert broker.perform(replay(page)) == [True], "it can still be replayed where it is"
    worker.kill_group()


def test_a_letter_goes_to_another_queue_of_its_own_partition(module: ModuleType, letter: DeadLetter) -> None:
    broker, partitions = module.app.client.broker, module.app.client.partitions
    near = next(name for name in (f"n{i}" for i in range(99)) if partitions.of(name).partition == 1)

    assert broker.perform(replay([letter], near)) == [True]

    ledger = survey(module.app)
    assert (ledger["q4"].dead, ledger["q4"].balance, ledger[near].pending, ledger[near].balance) == (0, 0, 1, 0)
    keys = partitions.of(near)
    assert not broker.perform(audit(keys, broker.perform(queues_of(keys))))


def on_its_way(module: ModuleType, letter: DeadLetter) -> None:
    """Have a letter replayed into q5 by somebody who is killed before he carries it over."""
    with closing(Connection(module.app.client.url)) as connection, pytest.raises(Killed):
        until_killed(replay([letter], "q5"), 1, connection, executes=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [(["reaper", "--once"], "carried 1 message over to another partition"), (["audit"], "mended nothing")],
    ids=["reaper", "audit"],
)
def test_a_command_that_does_the_upkeep_once_carries_over_what_is_on_its_way(
    module: ModuleType, letter: DeadLetter, words: list[str], said: str
) -> None:
    on_its_way(module, letter)
    name = ["--name", module.app.name]

    would = taskq(module.app.client.url, "reaper", "--dry-run", *name)
    assert "would carry 1 message over to another partition" in would.stdout
    assert (survey(module.app)["q4"].dead, "q5" in survey(module.app)) == (1, False), "a look changes nothing"

    assert said in taskq(module.app.client.url, *words, *name).stdout

    assert (survey(module.app)["q4"].dead, survey(module.app)["q5"].pending) == (0, 1)
    assert "carry" not in taskq(module.app.client.url, "reaper", "--dry-run", *name).stdout


def test_a_drain_does_not_end_before_what_is_on_its_way_has_run(module: ModuleType, letter: DeadLetter) -> None:
    on_its_way(module, letter)
    plan = Plan("jobs", "worker", 1, 1, 1.0, False, QueueSet.of(["q5"]), QueueSet("", ()), QueueSet("", ()))

    assert module.app.client.broker.perform(left_over(module.app.client.partitions, plan, [])) is None

    assert survey(module.app)["q5"].pending == 1


def test_what_cannot_be_carried_over_keeps_nothing_else_back(module: ModuleType, letter: DeadLetter) -> None:
    on_its_way(module, letter)
    broker, partitions = module.app.client.broker, module.app.client.partitions
    for keys in partitions.all:
        broker.run(Command(None, [b"HSET", keys["onward"], b"spoilt", b"by hand"], int))

    with pytest.raises(BrokerRefused, match=r"message spoilt.*cannot be read"):
        broker.perform(carry_all(partitions))

    assert (survey(module.app)["q4"].dead, survey(module.app)["q5"].pending) == (0, 1)
    before = broker.run(looking.server_time())
    for keys in partitions.all:
        broker.run(Command(None, [b"DEL", keys["audited"]], int))
    upkeep = housekeeping.Upkeep(partitions, Connection(module.app.client.url))
    upkeep.start()
    wait_until(lambda: broker.perform(last_audit(partitions)).at > before, "an audit in each partition")
    upkeep.end()
    upkeep.join(10)


# -- commands --------------------------------------------------------------------------------------------


def taskq(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "taskq", *words, "--url", url],
        env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_commands_look_at_all_partitions_without_the_app(
    module: ModuleType, session_server: Server, start_worker: Start
) -> None:
    start_worker("-c", "1", "-Q", "q4,q5")
    with pytest.raises(TaskError):
        module.fails.delay().get(timeout=20)
    for task in (module.zero, module.two):
        task.delay(1)
    name, url = ["--name", module.app.name], session_server.url

    rows = [json.loads(line) for line in taskq(url, "queues", *name, "--json").stdout.splitlines()]
    assert {row["queue"]: row["partition"] for row in rows} == {"q0": 0, "q4": 1, "q1": 2}
    shown = [line.split() for line in taskq(url, "queues", *name).stdout.splitlines()]
    at = shown[0].index("PARTITION")
    assert [line[at] for line in shown[1:4]] == ["0", "2", "1"]
    assert taskq(url, "workers", *name).stderr.startswith("1 worker at")
    assert "fails" in taskq(url, "dead", "ls", *name).stdout
    moved = taskq(url, "dead", "replay", "--all", *name, "--to", "q0")
    assert "replayed 1 dead letter" in moved.stdout, moved.stderr
    assert "has no queue 'q9'" in taskq(url, "dead", "replay", "--all", *name, "--to", "q9").stderr
    assert survey(module.app)["q0"].pending == 2
    assert "mended nothing" in taskq(url, "audit", *name).stdout
    assert taskq(url, "reaper", "--once", *name).stdout.count("recovered 0 messages") == 4


def test_names_for_people_are_of_the_app(session_server: Server) -> None:
    assert topology("a") == topology("a", 1)
    assert [keys.prefix for keys in topology("a", 2).all] == [b"tq:{a:0}:", b"tq:{a:1}:"]
