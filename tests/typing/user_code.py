"""User code for mypy: each line marked `error` must be one for the type checker, all others must pass."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, Unpack, assert_type

import tenacity

from taskq import (
    AsyncResult,
    AsyncTask,
    Breaker,
    Call,
    Context,
    Limit,
    Outgoing,
    Request,
    TaskQ,
    crontab,
    every,
)
from taskq.tasks.options import CallOptions, TaskOptions

app = TaskQ("typing", "redis://127.0.0.1:1")


@app.task
def add(a: int, b: int = 2) -> int:
    return a + b


@app.task(max_retries=5, queue="q")
def optioned(text: str, *, times: int) -> list[str]:
    return [text] * times


@app.task
async def wait(seconds: float) -> str:
    return "done"


@app.task(ignore_result=True)
async def wait_optioned(seconds: float) -> str:
    return "done"


@app.task(bind=True)
def bound(self: Context, x: int) -> str:
    assert_type(self.request.args, tuple[object, ...])  # error
    return self.request.id


@app.task(bind=True, max_retries=1)
async def bound_async(self: Context, x: int) -> bytes:
    granted = self.retry(eta=datetime.now(timezone.utc), args=(1,), kwargs={}, queue="q", expires=60, throw=False)
    assert_type(granted.delay, float | None)
    self.retry(countdown=5)


@app.task
def nothing() -> None: ...


@app.task
def any_number(*args: int, **kwargs: str) -> None: ...


@app.periodic("nightly", "0 3 * * mon-fri", args=(1,), tz="Europe/Vienna", catch_up="all", window=3600)
@app.task
def nightly(x: int) -> str:
    return str(x)


@app.around("run")
def timed(request: Request, call_next: Callable[[], Any]) -> Any:
    return call_next()


@app.around("arun")
async def atimed(request: Request, call_next: Callable[[], Awaitable[Any]]) -> Any:
    return await call_next()


@app.around("enqueue")
def stamped(call: Outgoing, call_next: Callable[[], Call]) -> Call:
    call.headers["tenant"] = "acme"
    return call_next()


@app.on("success")
def succeeded(request: Request, value: object) -> None: ...


@app.on("dead")
async def buried(request: Request, error: BaseException) -> None: ...


@app.on("retry")
def retried(request: Request, error: BaseException | None) -> None: ...


@app.on("child_init")
def begun() -> None: ...


@app.task(around_run=timed, on_failure=[buried])
def hooked(x: int) -> int:
    return x


@app.task(
    name="much", queue=None, ignore_result=True, dead_letter=False, discard_after=60, pool="thread",
    soft_time_limit=1.5, time_limit=None, at_most_once=True, priority=-5, fair_by="x", fair_weight=lambda x: x / 2,
    rate="40/m", burst=2, max_concurrency=3, key=lambda x: x, limits=[Limit("1/s"), Limit(max_concurrency=2)],
    unique="until_done", unique_by="x", unique_for=3600, on_duplicate="raise", max_length=1000, full_timeout=0.5,
    breaker=Breaker(failures=0.5, of=20, pause=30), autoretry_for=(OSError, ValueError),
    dont_autoretry_for=FileNotFoundError, max_retries=None, retry_backoff=True, retry_backoff_max=60,
    retry_jitter=False,
)  # fmt: skip
def much(x: int) -> int:
    return x


@app.task(debounce=5, max_wait=60, default_retry_delay=1.5)
def seldom(x: int) -> None: ...


@app.task(
    retry=tenacity.retry_if_exception_type(OSError) | tenacity.retry_if_result(lambda value: value is None),
    wait=tenacity.wait_fixed(3) + tenacity.wait_random(0, 2),
    stop=lambda state: state.attempt_number > 3,
    before_sleep=lambda state: print(state),
)
def tenacious(x: int) -> int | None:
    return x


def passed_on(**options: Unpack[TaskOptions]) -> None:
    app.task(**options)(much.function)


def send_like(options: CallOptions) -> None:
    add.apply_async((1,), **options)


class Adder:
    async def __call__(self, a: int) -> int:
        return a


@app.resource
def number() -> Iterator[int]:
    yield 1


@app.resource
def text() -> str:
    return "a"


@app.resource
async def anumber() -> AsyncIterator[int]:
    yield 1


@app.resource
async def atext() -> str:
    return "a"


adder = app.task(Adder())
part = app.task(name="part")(functools.partial(add.function, b=3))


# -- good calls -------------------------------------------------------------------------------------------------------

assert_type(add.delay(1), AsyncResult[int])
assert_type(add.delay(1, b=3).get(timeout=5), int)
assert_type(add(1, 2), int)
assert_type(add.apply((1,)).get(), int)
assert_type(add.apply_async((1,), countdown=5).get(), int)
assert_type(add.delay_many([1, 2]), list[AsyncResult[int]])
assert_type(optioned.delay("x", times=3).get(), list[str])
assert_type(wait.delay(1.5).get(), str)
assert_type(wait_optioned.delay(1).get(), str)
assert_type(bound.delay(5).get(), str)
assert_type(bound_async.delay(5).get(), bytes)
assert_type(nothing.delay(), AsyncResult[None])
any_number.delay(1, 2, 3, a="b")
assert_type(nightly.delay(1).get(), str)
assert_type(hooked.delay(1).get(), int)
assert_type(number(), int)
assert_type(text(), str)
begun()
assert_type(adder.delay(1).get(), int)
part.delay(1)
app.periodic("add", crontab(minute=0, hour=[3, 15]), add, (1,), {"b": 3}, overlap="skip").delay(1)
app.periodic("every", every(timedelta(minutes=5)), wait, [1.5], jitter=timedelta(seconds=9), expires=60)
app.enqueue_many([add.call(1), wait.call(2), add.prepare_call((1,), countdown=1)])


add.apply_async(
    (1,), {"b": 2}, countdown=1.5, expires=60, queue="q", priority=3, task_id="one", headers={"a": 1},
    ignore_result=None, max_retries=None, retry_backoff=2, retry_backoff_max=60.0, retry_jitter=True,
    default_retry_delay=1,
)  # fmt: skip
add.apply_async((1,), eta=datetime.now(timezone.utc), expires=datetime.now(timezone.utc))
assert_type(much.delay(1).get(), int)
assert_type(tenacious.delay(1).get(), int | None)


async def on_a_loop() -> None:
    assert_type(await anumber(), int)
    assert_type(await atext(), str)
    assert_type(await wait(1), str)
    assert_type(await wait.adelay(1), AsyncResult[str])
    assert_type(await (await add.adelay(1)).aget(), int)
    assert_type(await (await bound_async.aapply_async((1,))).aget(), bytes)
    tasks: list[AsyncTask[..., str]] = [wait, wait_optioned]
    assert_type(await tasks[0](1), str)


# -- bad calls --------------------------------------------------------------------------------------------------------

add.delay()  # error, also at run time
add.delay("1")  # error
add.delay(1, c=2)  # error, also at run time
add.delay(1, 2, 3)  # error, also at run time
optioned.delay("x")  # error, also at run time
optioned.delay("x", 3)  # error, also at run time
wait.delay("1")  # error
wait_optioned.delay()  # error, also at run time
bound.delay()  # error, also at run time
bound.delay("5")  # error
bound.delay(None, 5)  # error, also at run time
bound_async.delay(b"")  # error
nothing.delay(1)  # error, also at run time
any_number.delay("1")  # error
add.call("1")  # error
number: str = add.delay(1).get()  # error
text: int = wait.delay(1).get()  # error
app.task(add, bind=True)  # error
nightly.delay("1")  # error
app.periodic("add", 300, add)  # error
app.periodic("add", "@daily", add, catch_up="some")  # error
app.periodic("add", "@daily", print)  # error
crontab(minute=1.5)  # error


app.task(max_retry=5)  # error
app.task(bind=True, max_retry=5)  # error
app.task(time_limit="5")  # error
app.task(unique="until_end")  # error
app.task(pool="process")  # error
app.task(autoretry_for=[3])  # error
app.task(stop=tenacity.wait_fixed(3))  # error
app.task(acks_late=True)  # error
add.apply_async((1,), countdwon=3)  # error
add.apply_async((1,), countdown="3")  # error
add.apply_async((1,), retry=True)  # error
add.prepare_call((1,), quue="q")  # error
add.apply((1,), timeout=3)  # error
app.periodic("add", "@daily", add, countdown=3)  # error
app.periodic("add", "@daily", add, expires=datetime.now(timezone.utc))  # error
send_like({"countdwon": 3})  # error


async def badly_on_a_loop() -> None:
    await add.aapply_async((1,), countdwon=3)  # error
    await wait.adelay("1")  # error
    await add(1, 2)  # error
    assert_type(await wait(1), int)  # error


adder.delay("1")  # error
add.s(1)  # error
print(app.conf)  # error
app.around("runs")  # error
app.around("arun")(begun)  # error
app.around("enqueue")(timed)  # error
app.on("child_int")  # error
app.on("child_init")(succeeded)  # error
app.on("failure")(begun)  # error
app.on("retry")(buried)  # error
