"""A server that is another's replica, cannot write, or was replaced by another behind the same name."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskq import BrokerUnavailable, TaskQ
from taskq.broker.call import Command
from taskq.broker.net.connection import Connection
from taskq.broker.net.embedded import server_program
from tests.faults.proxy import Proxy
from tests.support import Server, Start, each_kind, load_jobs, survey, unique_name, wait_until

JOBS = """
@app.task
def double(i):
    return 2 * i

@app.task
async def adouble(i):
    return 2 * i
"""


def say(server: Server, *words: object) -> Any:
    connection = Connection(server.url)
    try:
        return connection.execute(Command(None, [str(word) for word in words], lambda reply: reply))
    finally:
        connection.close()


def demote(server: Server) -> None:
    """Make a replica of a server, of nobody in particular."""
    say(server, "REPLICAOF", "127.0.0.1", "1")


@pytest.fixture
def other_server(short_folder: Path) -> Iterator[Server]:
    server = Server(server_program(), Path(tempfile.mkdtemp(dir=short_folder)))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def failover(own_server: Server, other_server: Server) -> Iterator[Proxy]:
    """A name that leads to the first server, and will lead to the second; who is connected stays where it is."""
    made = Proxy(own_server.socket)
    yield made
    made.close()


def fail_over(proxy: Proxy, old: Server, new: Server) -> None:
    proxy.target = str(new.socket)
    demote(old)


@each_kind
def test_a_producer_finds_the_new_primary_behind_the_same_name(
    failover: Proxy, own_server: Server, other_server: Server
) -> None:
    app = TaskQ(unique_name(), failover.url)
    add = app.task(name="add")(lambda a: a)

    async def on_a_loop() -> None:
        await add.adelay(1)
        await add.adelay_many([1, 2])
        fail_over(failover, own_server, other_server)
        await add.adelay(1)
        await add.adelay_many([1, 2])
        await app.apause(add)

    handle = add.delay(1)
    asyncio.run(on_a_loop())
    add.delay(1)
    add.delay_many([1, 2])

    assert survey(TaskQ(app.name, other_server.url))["add"].counters["accepted"] == 6
    assert handle.state == "UNKNOWN"


def test_a_producer_says_that_it_reaches_a_replica_only(own_server: Server) -> None:
    app = TaskQ(unique_name(), own_server.url, send_timeout=0.3)
    demote(own_server)

    with pytest.raises(BrokerUnavailable, match=r"has refused for .* what it may accept later: .*read only replica"):
        app.task(name="add")(lambda a: a).delay(1)


@each_kind
def test_a_worker_goes_on_at_the_new_primary_behind_the_same_name(
    failover: Proxy, own_server: Server, other_server: Server, tmp_path: Path, start_worker: Start
) -> None:
    module = load_jobs(tmp_path, JOBS, failover.url, "lease=1")
    worker = start_worker("-c", "1", url=failover.url)
    assert [module.double.delay(1).get(20), module.adouble.delay(1).get(20)] == [2, 2], worker.log

    fail_over(failover, own_server, other_server)
    direct = TaskQ(module.app.name, other_server.url)
    handles = [direct.AsyncResult(task.delay(4).id) for task in (module.double, module.adouble)]

    assert [handle.get(20) for handle in handles] == [8, 8], worker.log
    assert "died" not in worker.log
    assert worker.stop() == 0


def test_a_worker_started_at_a_replica_waits_until_it_is_promoted(
    own_server: Server, tmp_path: Path, start_worker: Start
) -> None:
    module = load_jobs(tmp_path, JOBS, own_server.url)
    demote(own_server)
    worker = start_worker("-c", "1", url=own_server.url)
    wait_until(lambda: "read-only replica" in worker.log, "it says what it waits for")

    say(own_server, "REPLICAOF", "NO", "ONE")

    assert module.double.delay(4).get(20) == 8, worker.log
    assert worker.log.count("waiting for the server") == 1


def test_a_worker_and_a_waiter_outlast_a_server_that_cannot_write(
    short_folder: Path, tmp_path: Path, start_worker: Start
) -> None:
    """First since too few replicas are there (NOREPLICAS), then since it could not save (MISCONF)."""
    data = Path(tempfile.mkdtemp(dir=short_folder))
    server = Server(
        server_program(), Path(tempfile.mkdtemp(dir=short_folder)), "--save", "3600", "1000000", "--dir", str(data)
    )
    server.start()
    try:
        module = load_jobs(tmp_path, JOBS, server.url, "lease=1, send_timeout=30")
        worker = start_worker("-c", "2", url=server.url)
        assert [module.double.delay(1).get(20), module.adouble.delay(1).get(20)] == [2, 2], worker.log
        shutil.rmtree(data)
        say(server, "CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
        say(server, "BGSAVE")
        wait_until(lambda: b"rdb_last_bgsave_status:err" in say(server, "INFO", "persistence"), "it could not save")

        for times, (name, bad, good) in enumerate(
            [("min-replicas-to-write", 1, 0), ("stop-writes-on-bgsave-error", "yes", "no")], 1
        ):
            handles = module.adouble.delay_many([1]) + module.double.delay_many([1])
            assert [handle.get(20) for handle in handles] == [2, 2]
            say(server, "CONFIG", "SET", name, bad)
            wait_until(lambda n=times: worker.log.count("no lease can be renewed") == n, "it says so")
            got: list[Any] = []
            call = threading.Thread(target=lambda got=got: got.append(module.adouble.delay(5).get(30)), daemon=True)
            call.start()
            assert call.is_alive()
            say(server, "CONFIG", "SET", name, good)
            wait_until(lambda n=times: worker.log.count("the server answers again") == n, "it says so")
            wait_until(lambda got=got: got == [10], "the call gets through")
            assert module.double.delay(6).get(20) == 12
        assert "died" not in worker.log
        loud = [line for line in worker.log.splitlines() if " WARNING " in line or " ERROR " in line]
        assert len(loud) < 10, worker.log
    finally:
        server.stop()
