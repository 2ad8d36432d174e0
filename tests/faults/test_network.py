"""A network that is slow, falls silent, breaks connections in the middle, or delivers a call late."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from types import FrameType, ModuleType
from typing import Any

import pytest

from taskq import DuplicateTaskId, EnqueueUncertain, ResultTimeout, TaskQ
from taskq.broker.call import Command
from taskq.broker.net.connection import ANSWER_TIMEOUT
from taskq.broker.scripts import script
from taskq.errors import BrokerError, BrokerRefused, BrokerUnavailable
from taskq.message.ids import id_from_text, id_partition
from taskq.worker.child.main_lane import WAIT
from tests.faults.proxy import CUT_REPLY, DROP_REPLY, DROP_REQUEST, HOLD, PASS, Proxy
from tests.support import SEED, SOAK, Server, Start, Worker, Write, new_app, survey, wait_until

JOBS = """
@app.task
def double(i, seconds=0):
    time.sleep(seconds)
    return 2 * i

@app.task
async def adouble(i):
    await asyncio.sleep(0.001)
    return 2 * i

@app.task(max_retries=1, default_retry_delay=0.01, autoretry_for=(KeyError,), bind=True)
def second_try(self, i):
    if self.request.retries == 0:
        raise KeyError(i)
    return 2 * i
"""


def raw(app: TaskQ, *words: Any) -> Any:
    return app.client.broker.run(Command(None, list(words), lambda reply: reply))


def call_of(name: str) -> bytes:
    return script(name).sha


# -- producers --------------------------------------------------------------------------------------------------


def test_sixteen_threads_send_while_replies_are_lost_and_scripts_flushed(proxy: Proxy, session_server: Server) -> None:
    print("seed", SEED)
    chance, each = random.Random(SEED), 1000 if SOAK else 60
    proxy.decide = lambda number, call: chance.choices(
        [PASS, DROP_REPLY, CUT_REPLY, DROP_REQUEST, "flush"], [80, 8, 4, 4, 4]
    )[0]
    decide = proxy.decide
    direct = new_app(session_server.url)
    app = TaskQ(direct.name, proxy.url, send_timeout=20)

    def flush_sometimes(number: int, call: bytes) -> str:
        if (fate := decide(number, call)) != "flush":
            return fate
        raw(direct, b"SCRIPT", b"FLUSH")
        return PASS

    proxy.decide = flush_sometimes
    add = app.task(name="add")(lambda a: a)
    sent: list[list[str]] = [[] for _ in range(16)]
    errors: list[Exception] = []

    def send(mine: list[str]) -> None:
        try:
            for i in range(each):
                if i % 20 == 7:
                    mine.extend(result.id for result in add.delay_many(range(30)))
                elif i % 20 == 13:
                    mine.append(add.apply_async((i,), countdown=3600).id)
                else:
                    mine.append(add.delay(i).id)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=send, args=(mine,)) for mine in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    ids = [bytes.fromhex(id_.replace("-", "")) for mine in sent for id_ in mine]
    keys = direct.client.keys
    waiting = raw(direct, b"LRANGE", keys["queue:add"], 0, -1) + raw(direct, b"ZRANGE", keys["schedule"], 0, -1)
    assert Counter(waiting) == Counter(ids)
    assert Counter(raw(direct, b"HKEYS", keys["messages"])) == Counter(ids)
    ledger = survey(direct)["add"]
    assert (ledger.counters["accepted"], ledger.balance) == (len(ids), 0)


#: A queue in each of four partitions.
_QUEUES = ("q0", "q4", "q1", "q5")


def in_four_partitions(session_server: Server, url: str, send_timeout: float) -> tuple[TaskQ, TaskQ]:
    """An app of four partitions with a task in each: one that speaks to the server, one by way of ``url``."""
    direct = new_app(session_server.url, partitions=4)
    app = TaskQ(direct.name, url, send_timeout=send_timeout, partitions=4)
    for queue in _QUEUES:
        app.task(name=queue, queue=queue)(lambda a: a)
    return direct, app


def mixed(app: TaskQ, n: int) -> list[Any]:
    return [app.tasks[_QUEUES[i % 4]].call(i) for i in range(n)]


@pytest.mark.parametrize("sends", ["sync", "async"])
def test_what_goes_to_several_partitions_goes_in_one_write(proxy: Proxy, session_server: Server, sends: str) -> None:
    direct, app = in_four_partitions(session_server, proxy.url, 5.0)

    async def asend() -> int:
        await app.aenqueue_many(mixed(app, 4))
        before = proxy.calls
        await app.aenqueue_many(mixed(app, 400))
        return proxy.calls - before

    if sends == "async":
        trips = asyncio.run(asend())
    else:
        app.enqueue_many(mixed(app, 4))
        before = proxy.calls
        app.enqueue_many(mixed(app, 400))
        trips = proxy.calls - before

    assert trips == 1
    ledger = survey(direct)
    assert {queue: ledger[queue].pending for queue in _QUEUES} == dict.fromkeys(_QUEUES, 101)


@pytest.mark.parametrize("sends", ["sync", "async"])
def test_calls_to_several_partitions_are_neither_lost_nor_doubled_where_some_replies_are(
    proxy: Proxy, session_server: Server, sends: str
) -> None:
    print("seed", SEED)
    chance, rounds, results = random.Random(SEED), 400 if SOAK else 12, []
    direct, app = in_four_partitions(session_server, proxy.url, 20.0)
    app.enqueue_many(mixed(app, 4))
    fates = [PASS, DROP_REPLY, CUT_REPLY, DROP_REQUEST, "flush"]

    def decide(_number: int, _call: bytes) -> str:
        fate = chance.choices(fates, [50, 15, 20, 10, 5])[0]
        if fate == "flush":
            raw(direct, b"SCRIPT", b"FLUSH")
        return PASS if fate == "flush" else fate

    async def asend() -> None:
        for _ in range(rounds):
            results.extend(await app.aenqueue_many(mixed(app, 24)))
        await app.aclose()

    proxy.decide = decide
    if sends == "async":
        asyncio.run(asend())
    else:
        for _ in range(rounds):
            results.extend(app.enqueue_many(mixed(app, 24)))

    ids = [id_from_text(result.id) for result in results]
    for n, queue in enumerate(_QUEUES):
        waiting = raw(direct, b"LRANGE", direct.client.partitions.of(queue)["queue:" + queue], 1, -1)
        assert waiting == ids[n::4]
    ledger = survey(direct)
    assert [(ledger[queue].counters["accepted"], ledger[queue].balance) for queue in _QUEUES] == [
        (rounds * 6 + 1, 0)
    ] * 4


def test_calls_of_which_some_were_answered_before_the_server_fell_silent_are_uncertain(
    proxy: Proxy, session_server: Server
) -> None:
    direct, app = in_four_partitions(session_server, proxy.url, 0.6)
    app.enqueue_many(mixed(app, 4))
    first = proxy.calls + 1
    proxy.decide = lambda number, call: CUT_REPLY if number == first else DROP_REQUEST

    with pytest.raises(EnqueueUncertain, match="2 of 4 calls, to other partitions, were accepted") as caught:
        app.enqueue_many(mixed(app, 4))

    assert [id_partition(id_from_text(text)) for text in caught.value.task_ids] == [2, 3]
    assert [survey(direct)[queue].pending for queue in _QUEUES] == [2, 2, 2, 2], "they were, and nobody knew"
    proxy.decide = lambda number, call: PASS
    with pytest.raises(DuplicateTaskId):
        app.tasks["q1"].apply_async((2,), task_id=caught.value.task_ids[0])


def test_nothing_was_accepted_if_no_partition_could_be_asked(session_server: Server) -> None:
    _, app = in_four_partitions(session_server, "redis://127.0.0.1:1", 0.3)

    with pytest.raises(BrokerUnavailable, match=r"no answer from redis://127\.0\.0\.1:1 for 0\.3 s"):
        app.enqueue_many(mixed(app, 8))


def test_a_partition_that_refuses_is_in_no_others_way(session_server: Server) -> None:
    direct, app = in_four_partitions(session_server, session_server.url, 5.0)
    app.enqueue_many(mixed(app, 4))
    raw(direct, b"SET", direct.client.partitions.of("q4")["queue:q4"], b"by hand")

    with pytest.raises(BrokerRefused, match="3 of 4 calls, to other partitions, were accepted"):
        app.enqueue_many(mixed(app, 4))

    raw(direct, b"DEL", direct.client.partitions.of("q4")["queue:q4"])
    app.enqueue_many(mixed(app, 4))
    ledger = survey(direct)
    assert [ledger[queue].counters["accepted"] for queue in _QUEUES] == [3, 2, 3, 3]


def test_a_silent_server_makes_delay_uncertain_in_time_and_its_repeat_is_safe(
    proxy: Proxy, session_server: Server
) -> None:
    direct = new_app(session_server.url)
    app = TaskQ(direct.name, proxy.url, send_timeout=0.5)
    add = app.task(name="add")(lambda a: a)
    add.delay(0)
    proxy.decide = lambda number, call: HOLD

    began = time.monotonic()
    with pytest.raises(EnqueueUncertain) as caught:
        add.delay(1)
    assert time.monotonic() - began < 4
    proxy.release()  # it was accepted after all
    proxy.decide = lambda number, call: PASS

    with pytest.raises(DuplicateTaskId):
        add.apply_async((1,), task_id=caught.value.task_ids[0])
    assert raw(direct, b"LLEN", direct.client.keys["queue:add"]) == 2


def test_a_call_that_executes_after_its_repeat_changes_nothing(proxy: Proxy, session_server: Server) -> None:
    direct = new_app(session_server.url)
    app = TaskQ(direct.name, proxy.url, send_timeout=10)
    add = app.task(name="add")(lambda a: a)
    add.delay(0)
    proxy.decide = lambda number, call: HOLD if not proxy.held else PASS
    app.client.broker._idle[0].connection._raw.socket_timeout = 0.2
    app.client.broker._idle[0].connection._raw._sock.settimeout(0.2)

    add.delay(1)
    add.delay(2)
    proxy.release()

    keys = direct.client.keys
    assert raw(direct, b"LLEN", keys["queue:add"]) == 3
    assert survey(direct)["add"].counters["accepted"] == 3


def test_a_call_that_executes_after_it_was_given_up_and_repeated_by_id_is_no_double(
    proxy: Proxy, session_server: Server
) -> None:
    direct = new_app(session_server.url)
    app = TaskQ(direct.name, proxy.url, send_timeout=0.3)
    add = app.task(name="add")(lambda a: a)
    assert app.AsyncResult("nothing").state == "UNKNOWN"  # it is connected
    proxy.decide = lambda number, call: HOLD
    with pytest.raises(EnqueueUncertain) as caught:
        add.delay(1)
    proxy.decide = lambda number, call: PASS

    add.apply_async((1,), task_id=caught.value.task_ids[0])
    proxy.release()

    assert raw(direct, b"LLEN", direct.client.keys["queue:add"]) == 1
    assert survey(direct)["add"].counters["accepted"] == 1


def test_no_server_is_known_to_have_accepted_nothing(session_server: Server) -> None:
    proxy = Proxy(session_server.socket)
    proxy.close()
    app = new_app(proxy.url, send_timeout=0.3)

    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        app.task(name="add")(lambda a: a).delay(1)

    assert time.monotonic() - began < 4


def test_a_call_interrupted_while_connecting_leaves_no_reply_for_the_next(proxy: Proxy, session_server: Server) -> None:
    app = new_app(proxy.url)
    add = app.task(name="add")(lambda a: a)
    proxy.latency = 0.3  # the handshake takes a while

    class Interrupted(BaseException):
        pass

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(Interrupted):
            add.delay(1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    proxy.latency = 0.0

    for i in range(3):
        result = add.delay(i)
        assert result.state == "PENDING"


# -- workers ----------------------------------------------------------------------------------------------------


def work_through(proxy: Proxy, module: ModuleType, start_worker: Start, *, seconds: float = 25.0) -> Worker:
    """Let a worker behind the proxy run a mixed load; check that nothing is lost, doubled or left over."""
    n = 12
    handles = module.app.enqueue_many(
        [task.call(i) for i in range(n) for task in (module.double, module.adouble, module.second_try)]
    )
    worker = start_worker("-c", "1", url=proxy.url)

    assert [h.get(timeout=seconds) for h in handles] == [2 * i for i in range(n) for _ in range(3)], worker.log
    wait_until(lambda: sum(q.processing for q in survey(module.app).values()) == 0, "nothing is held", 3.0)
    for name, ledger in survey(module.app).items():
        assert ledger.counters["done"] == ledger.counters["accepted"] == n, (name, worker.log)
        assert ledger.balance == 0
        assert ledger.counters.get("crashes", 0) == 0
    return worker


def use_proxy(module: ModuleType, proxy: Proxy) -> ModuleType:
    """Let workers on the module take the proxy's URL, while this process keeps the direct one."""
    path = module.__file__
    assert path is not None
    with open(path) as file:
        source = file.read()
    with open(path, "w") as file:
        file.write(source.replace(module.app.client.url, proxy.url))
    return module


@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("fate", [DROP_REPLY, CUT_REPLY, DROP_REQUEST])
def test_every_seventh_call_of_a_worker_breaks(
    fate: str, partitions: int, proxy: Proxy, jobs: Write, start_worker: Start
) -> None:
    module = use_proxy(jobs(JOBS, settings=f"lease=1, partitions={partitions}"), proxy)
    proxy.decide = lambda number, call: fate if number % 7 == 0 else PASS

    work_through(proxy, module, start_worker)


def test_messages_that_come_alone_to_several_partitions_run_once_while_replies_are_lost(
    proxy: Proxy, jobs: Write, start_worker: Start
) -> None:
    print("seed", SEED)
    module, chance = use_proxy(jobs(JOBS, settings="lease=2, partitions=4"), proxy), random.Random(SEED)
    worker = start_worker("-c", "1", url=proxy.url)
    tasks = (module.double, module.second_try)  # they are in two partitions
    assert [task.delay(1).get(timeout=20) for task in tasks] == [2, 2]
    lost = [call_of(name) for name in ("fetch", "fetch_any", "sync")]
    fates = [PASS, DROP_REPLY, CUT_REPLY, DROP_REQUEST]

    def decide(_number: int, call: bytes) -> str:
        return chance.choices(fates, [70, 15, 5, 10])[0] if any(sha in call for sha in lost) else PASS

    proxy.decide = decide
    for i in range(300 if SOAK else 60):
        assert chance.choice(tasks).delay(i).get(timeout=20) == 2 * i, worker.log
    proxy.decide = lambda number, call: PASS

    wait_until(lambda: sum(queue.processing for queue in survey(module.app).values()) == 0, "nothing is held")
    for ledger in survey(module.app).values():
        assert (ledger.counters["done"], ledger.balance) == (ledger.counters["accepted"], 0), worker.log


@pytest.mark.parametrize("n", range(1, 201) if SOAK else (1, 6, 11, 15, 19, 24))
def test_the_nth_reply_to_a_worker_is_lost(n: int, proxy: Proxy, jobs: Write, start_worker: Start) -> None:
    module = use_proxy(jobs(JOBS, settings="lease=1"), proxy)
    proxy.decide = lambda number, call: DROP_REPLY if number == n else PASS

    work_through(proxy, module, start_worker)


@pytest.mark.parametrize("name", ["fetch", "register", "renew", "close"])
def test_a_workers_call_executes_late(name: str, proxy: Proxy, jobs: Write, start_worker: Start) -> None:
    module = use_proxy(jobs(JOBS, settings="lease=1"), proxy)
    kept: list[int] = []

    def hold_two(number: int, call: bytes) -> str:
        if call_of(name) not in call or len(kept) == 2:
            return PASS
        kept.append(number)
        # Its client gives up at once instead of after five seconds.
        threading.Timer(0.05, proxy.reset).start()
        return HOLD

    proxy.decide = hold_two
    worker = work_through(proxy, module, start_worker)
    if name == "close":
        worker.stop(seconds=10)
        worker = start_worker("-c", "1", url=proxy.url)
    wait_until(lambda: proxy.held, "a call is held")
    more = module.double.delay_many([(i, 0.1) for i in range(3)])

    proxy.release()

    assert [h.get(timeout=30) for h in more] == [0, 2, 4]
    wait_until(lambda: sum(q.processing for q in survey(module.app).values()) == 0, "nothing is held", 3.0)
    ledger = survey(module.app)["jobs.double"]
    assert ledger.counters["done"] == ledger.counters["accepted"] == 15
    assert ledger.balance == 0


def test_a_worker_works_over_a_slow_line_that_brings_single_bytes(
    proxy: Proxy, jobs: Write, start_worker: Start
) -> None:
    module = use_proxy(jobs(JOBS, settings="lease=2"), proxy)
    proxy.latency, proxy.trickle = 0.02, True

    work_through(proxy, module, start_worker)


def test_a_worker_consumes_again_after_its_connections_fell_silent(
    proxy: Proxy, jobs: Write, start_worker: Start
) -> None:
    module = use_proxy(jobs(JOBS, settings="lease=2"), proxy)
    work_through(proxy, module, start_worker)

    proxy.swallow = True
    module.adouble.delay_many([(i,) for i in range(5)])
    handles = module.double.delay_many([(i,) for i in range(5)])
    # A fetch that was on the server already may take them; nobody hears of it.
    ended = survey(module.app)["jobs.double"].counters["done"]
    wait_until(lambda: survey(module.app)["jobs.double"].counters["accepted"] == ended + 5, "they are accepted")
    proxy.swallow = False

    # What hung hangs for the time of a wait and of an answer, and a second more: the proxy answers keepalives.
    seconds = WAIT + ANSWER_TIMEOUT + 1
    assert [h.get(timeout=seconds) for h in handles] == [0, 2, 4, 6, 8]
    wait_until(lambda: survey(module.app)["jobs.adouble"].counters["done"] == 17, "coroutines run as well", seconds)


# -- waiters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", ["get", "aget"])
@pytest.mark.parametrize("silent_from", ["the beginning", "the middle"])
def test_a_wait_is_never_much_later_than_its_timeout(
    wait: str, silent_from: str, proxy: Proxy, session_server: Server
) -> None:
    app = new_app(proxy.url)
    handle = app.task(name="add")(lambda a: a).delay(1)
    with pytest.raises(ResultTimeout):
        handle.get(timeout=0.05)
    if silent_from == "the beginning":
        proxy.swallow = True
    else:
        threading.Timer(0.3, lambda: setattr(proxy, "swallow", True)).start()

    async def in_a_loop() -> None:
        try:
            await handle.aget(timeout=1.0)
        finally:
            await app.aclose()

    began = time.monotonic()
    with pytest.raises((ResultTimeout, BrokerError)):
        handle.get(timeout=1.0) if wait == "get" else asyncio.run(in_a_loop())

    assert time.monotonic() - began < 4


@pytest.mark.parametrize("wait", ["get", "aget"])
def test_a_pending_wait_survives_resets(wait: str, proxy: Proxy, jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    app = TaskQ(module.app.name, proxy.url)
    start_worker("-c", "1")
    handle = app.AsyncResult(module.double.delay(21, 1.0).id)
    for seconds in (0.2, 0.5, 0.95):
        threading.Timer(seconds, proxy.reset).start()

    async def in_a_loop() -> Any:
        try:
            return await handle.aget(timeout=30)
        finally:
            await app.aclose()

    began = time.monotonic()
    assert (handle.get(timeout=30) if wait == "get" else asyncio.run(in_a_loop())) == 42
    assert time.monotonic() - began < 5


def test_two_hundred_waits_are_answered_while_replies_are_lost(proxy: Proxy, jobs: Write, start_worker: Start) -> None:
    module = jobs(JOBS)
    app = TaskQ(module.app.name, proxy.url)
    proxy.decide = lambda number, call: DROP_REPLY if number % 5 == 0 else PASS
    handles = [app.AsyncResult(h.id) for h in module.double.delay_many([(i, 0.002) for i in range(200)])]
    start_worker("-c", "1")
    values: dict[int, Any] = {}

    def wait(mine: range) -> None:
        for i in mine:
            values[i] = handles[i].get(timeout=30)

    threads = [threading.Thread(target=wait, args=(range(first, 200, 8),)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert values == {i: 2 * i for i in range(200)}
