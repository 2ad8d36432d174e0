"""Connections that were forgotten while idle, and answers that come too late: for threads and for event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from taskq import TaskQ
from taskq.broker.call import Command
from taskq.broker.faults import Unanswered
from taskq.broker.net.aio import AsyncConnection
from taskq.broker.net.connection import Connection
from taskq.calls.result import AsyncResult
from tests.faults.proxy import Proxy
from tests.support import Server, new_app, wait_until


def echo(text: bytes) -> Command[bytes]:
    return Command(None, [b"ECHO", text], lambda reply: reply)


def test_an_answer_that_comes_too_late_is_not_that_of_the_next_call(proxy: Proxy) -> None:
    connection = Connection(proxy.url)
    assert connection.execute(echo(b"a")) == b"a"

    proxy.latency = 0.3
    with pytest.raises(Unanswered):
        connection.execute(replace(echo(b"b"), within=0.2))
    proxy.latency = 0.0

    assert connection.execute(echo(b"c")) == b"c"
    connection.close()


@pytest.mark.parametrize("end", ["too late", "cancelled"])
def test_an_answer_on_a_loop_that_nobody_waits_for_is_not_that_of_the_next_call(end: str, proxy: Proxy) -> None:
    async def calls() -> bytes:
        connection = AsyncConnection(proxy.url)
        assert await connection.execute(echo(b"a")) == b"a"
        proxy.latency = 0.3
        call = asyncio.create_task(connection.execute(replace(echo(b"b"), within=0.2 if end == "too late" else 5.0)))
        if end == "cancelled":
            await asyncio.sleep(0.05)
            call.cancel()
        with pytest.raises((Unanswered, asyncio.CancelledError)):
            await call
        proxy.latency = 0.0
        try:
            return await connection.execute(echo(b"c"))
        finally:
            await connection.close()

    assert asyncio.run(calls()) == b"c"


def test_a_call_cancelled_in_the_handshake_leaves_no_answer_for_the_next(proxy: Proxy) -> None:
    async def calls(after: float) -> bytes:
        connection = AsyncConnection(proxy.url)
        proxy.latency = 0.03
        call = asyncio.create_task(connection.execute(echo(b"a")))
        await asyncio.sleep(after)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        proxy.latency = 0.0
        try:
            return await connection.execute(echo(b"b"))
        finally:
            await connection.close()

    for after in (0.0, 0.015, 0.045, 0.075):
        assert asyncio.run(calls(after)) == b"b"


def test_a_cancelled_call_does_not_take_its_connection_along(proxy: Proxy, session_server: Server) -> None:
    app = new_app(proxy.url)
    add = app.task(name="add")(lambda a: a)

    async def calls() -> str:
        await add.adelay(1)
        for _ in range(3):
            proxy.latency = 0.2
            call = asyncio.create_task(add.adelay(2))
            await asyncio.sleep(0.02)
            call.cancel()
            await asyncio.wait([call])
            proxy.latency = 0.0
            await add.adelay(3)
        assert len(app.client.abroker._idle) == 1
        return (await add.adelay(4)).id

    assert app.AsyncResult(asyncio.run(calls())).state == "PENDING"


#: What a client asks of the server, by an app, its task, and the handle of a call.
CALLS: dict[str, Callable[[TaskQ, Any, AsyncResult[Any]], Any]] = {
    "delay": lambda app, add, handle: add.delay(1),
    "delay_many": lambda app, add, handle: add.delay_many([1, 2]),
    "task_id": lambda app, add, handle: add.apply_async((1,), task_id="mine"),
    "state": lambda app, add, handle: handle.state,
    "why": lambda app, add, handle: handle.why(),
    "revoke": lambda app, add, handle: handle.revoke(),
    "forget": lambda app, add, handle: handle.forget(),
    "pause": lambda app, add, handle: app.pause("other"),
    "resume": lambda app, add, handle: app.resume("other"),
    "revoke_all": lambda app, add, handle: app.revoke_all(queue="other"),
}
ASYNC_CALLS: dict[str, Callable[[TaskQ, Any, AsyncResult[Any]], Awaitable[Any]]] = {
    "adelay": lambda app, add, handle: add.adelay(1),
    "adelay_many": lambda app, add, handle: add.adelay_many([1, 2]),
    "task_id": lambda app, add, handle: add.aapply_async((1,), task_id="mine"),
    "astatus": lambda app, add, handle: handle.astatus(),
    "awhy": lambda app, add, handle: handle.awhy(),
    "arevoke": lambda app, add, handle: handle.arevoke(),
    "apause": lambda app, add, handle: app.apause("other"),
    "aresume": lambda app, add, handle: app.aresume("other"),
    "arevoke_all": lambda app, add, handle: app.arevoke_all(queue="other"),
}


def test_every_call_gets_through_though_its_idle_connection_was_forgotten(proxy: Proxy) -> None:
    app = new_app(proxy.url, send_timeout=3.0)
    add = app.task(name="add")(lambda a: a)
    handle = add.delay(1)
    all_at_once = threading.Barrier(len(CALLS))
    failed: dict[str, BaseException] = {}

    def both(name: str) -> None:
        try:
            all_at_once.wait(20)
            sender = app.client.broker._sender()  # one for each thread
            sender.connection.execute(echo(b""))
            all_at_once.wait(20)
            app.client.broker._idle.append(sender)
            all_at_once.wait(20)
            proxy.forget()
            all_at_once.wait(20)
            CALLS[name](app, add, handle)
        except BaseException as error:
            failed[name] = error

    threads = [threading.Thread(target=both, args=(name,)) for name in CALLS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == {}


def test_every_call_of_a_loop_gets_through_though_its_idle_connection_was_forgotten(proxy: Proxy) -> None:
    app = new_app(proxy.url, send_timeout=3.0)
    add = app.task(name="add")(lambda a: a)

    async def calls() -> dict[str, object]:
        handles = await asyncio.gather(*(add.adelay(i) for i in range(len(ASYNC_CALLS))))
        proxy.forget()
        done = await asyncio.gather(
            *(call(app, add, handle) for call, handle in zip(ASYNC_CALLS.values(), handles, strict=True)),
            return_exceptions=True,
        )
        return dict(zip(ASYNC_CALLS, done, strict=True))

    failed = {name: error for name, error in asyncio.run(calls()).items() if isinstance(error, BaseException)}
    assert failed == {}


def test_a_wait_hears_of_its_result_though_the_inbox_was_forgotten(
    proxy: Proxy, session_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq.calls.inbox._IDLE", 0.0)
    app = new_app(proxy.url)
    add = app.task(name="add")(lambda a: a)
    handle = add.delay(1)
    with pytest.raises(TimeoutError):
        handle.get(timeout=0.05)
    proxy.forget()
    got: list[object] = []
    waiting = threading.Thread(target=lambda: got.append(handle.get(timeout=20, propagate=False)), daemon=True)
    waiting.start()
    direct = TaskQ(app.name, session_server.url)
    keys = app.client.keys
    wait_until(
        lambda: direct.client.broker.run(Command(None, [b"HLEN", keys["waiters"]], int)) == 1 and proxy.calls > 3,
        "it waits",
    )

    direct.AsyncResult(handle.id).revoke()

    waiting.join(10)
    assert got
