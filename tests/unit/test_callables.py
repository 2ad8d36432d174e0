"""What can be a task: the callable is judged, not what it wraps."""

from __future__ import annotations

import asyncio
import functools
import importlib
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taskq import ConfigError, Context, Retry, TaskQ
from taskq.message.codec import pack_call
from taskq.tasks.definition import Definition


@pytest.fixture
def app() -> TaskQ:
    """An app that never speaks to a server."""
    return TaskQ("unit", "redis://127.0.0.1:1", send_timeout=0.01)


@dataclass
class Item:
    name: str


def passing(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that changes nothing."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def giving(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that gives the function a first argument."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function("connection", *args, **kwargs)

    return wrapper


def giving_by_name(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, session="session", **kwargs)

    return wrapper


def taking(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator with an argument of its own."""

    @functools.wraps(function)
    def wrapper(tenant: str, *args: Any, **kwargs: Any) -> Any:
        return [tenant, function(*args, **kwargs)]

    return wrapper


class Callable_:
    def __call__(self, a: int) -> int:
        return a + 1


class AsyncCallable:
    async def __call__(self, a: int) -> int:
        return a + 1

    async def method(self, a: int) -> int:
        return a + 1


async def coroutine(a: int, b: int = 1) -> int:
    return a + b


def plain(a: int, b: int = 1) -> int:
    return a + b


@pytest.mark.parametrize("decorator", [giving, giving_by_name], ids=["first", "by name"])
def test_an_argument_that_a_decorator_gives_need_not_be_sent(
    app: TaskQ, decorator: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_position(connection: str, item: str) -> list[str]:
        return [connection, item]

    def by_name(item: str, *, session: str) -> list[str]:
        return [session, item]

    task = app.task(decorator(by_position if decorator is giving else by_name))

    assert task.apply(("socks",)).get()[1] == "socks"
    assert task.apply((), {"item": "socks"}).get()[1] == "socks"
    assert task.call("socks")


def test_an_argument_that_a_decorator_takes_is_one_of_the_call(app: TaskQ) -> None:
    @app.task(fair_by="tenant")
    @taking
    def mail(item: Item) -> str:
        return item.name

    assert mail.apply(("acme", Item("socks")), {}).state == "FAILURE"  # by position nobody knows what it is
    assert mail.apply(("acme",), {"item": Item("socks")}).get() == ["acme", "socks"]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'tenant'"):
        mail.call()


def test_a_decorator_that_passes_everything_on_leaves_the_annotations_in_force(app: TaskQ) -> None:
    @app.task(unique="until_done", unique_by="b")
    @passing
    def name_of(item: Item, b: int = 1) -> str:
        return item.name

    assert name_of.apply((Item("socks"),)).get() == "socks"
    assert name_of.named("x") == {"item": "x", "b": 1}


def test_a_bound_task_may_be_decorated(app: TaskQ) -> None:
    @app.task(bind=True)
    @passing
    def name_of(self: Any, item: Item) -> str:
        return f"{self.name} {item.name}"

    assert name_of.apply((Item("socks"),)).get() == f"{name_of.name} socks"


@pytest.mark.parametrize(
    ("function", "is_async", "name"),
    [
        (functools.partial(plain, b=5), False, "plain"),
        (functools.partial(coroutine, 5), True, "coroutine"),
        (functools.partial(AsyncCallable()), True, "AsyncCallable"),
        (Callable_(), False, "Callable_"),
        (AsyncCallable(), True, "AsyncCallable"),
        (AsyncCallable().method, True, "AsyncCallable.method"),
        (staticmethod(coroutine), True, "coroutine"),
        (functools.lru_cache(plain), False, "plain"),
        (max, False, "max"),
    ],
)
def test_whatever_can_be_called_can_be_a_task(function: Any, is_async: bool, name: str) -> None:
    task = Definition(function)

    assert task.is_async == is_async
    assert task.name.rpartition(".test_callables.")[2].removeprefix("builtins.") == name
    task.check(1)
    task.load(pack_call((1,), {}))


def test_a_coroutine_that_comes_out_of_a_sync_decorator_is_run(app: TaskQ) -> None:
    @app.task
    @passing
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    assert add.apply((1, 2)).get() == 3


def test_a_decorator_that_runs_the_loop_itself_goes_on_doing_so(app: TaskQ) -> None:
    def run(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return asyncio.run(function(*args))

        return wrapper

    assert app.task(run(coroutine)).apply((1,)).get() == 2


@pytest.mark.parametrize("ignored", [False, True])
def test_a_generator_that_comes_out_of_a_decorator_has_not_run_and_is_a_failure(app: TaskQ, ignored: bool) -> None:
    @app.task(ignore_result=ignored)
    @passing
    def numbers() -> Any:
        yield 1

    result = numbers.apply()

    assert result.state == "FAILURE"
    assert "generator" in str(result.result)


def make(app: TaskQ, number: int, **options: Any) -> Any:
    @app.task(**options)
    def made() -> int:
        return number

    return made


def without_wraps(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper() -> Any:
        return function()

    return wrapper


def test_a_task_that_a_factory_replaced_is_not_sent_since_the_other_would_run(
    app: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    first = make(app, 1)
    second = make(app, 2)

    for send in (first.delay, first.apply_async, lambda: app.enqueue_many([first.call()])):
        with pytest.raises(ConfigError, match=r"two tasks are named .*make\.made.*give each a name="):
            send()
    with pytest.raises(ConfigError, match="periodic entry nightly: two tasks are named"):
        app.periodic("nightly", "@daily", first)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert (first.apply().get(), second.apply().get()) == (1, 2)
    assert app.tasks[first.name] is second


def test_names_make_the_tasks_of_a_factory_two(app: TaskQ) -> None:
    tasks = make(app, 1, name="one"), make(app, 2, name="two")

    assert [task.origin.refused for task in tasks] == ["", ""]
    assert set(app.tasks) == {"one", "two"}


@pytest.mark.parametrize(
    "pair",
    [
        (without_wraps(lambda: 1), without_wraps(lambda: 2)),
        (functools.partial(plain, 1), functools.partial(plain, 2)),
        (functools.partial(plain, 1), plain),
        (AsyncCallable().method, AsyncCallable().method),
        (AsyncCallable(), AsyncCallable()),
    ],
    ids=["no wraps", "partials", "partial", "methods", "objects"],
)
def test_two_of_one_name_are_told_apart_however_they_came_about(app: TaskQ, pair: tuple[Any, Any]) -> None:
    first, second = map(app.task, pair)

    assert "two tasks are named" in first.origin.refused
    assert not second.origin.refused


@pytest.mark.parametrize("queue", ["a", "b"])
def test_a_function_may_be_made_a_task_again_but_not_with_other_options(app: TaskQ, queue: str) -> None:
    first = app.task(queue="a")(plain)
    app.task(queue=queue)(plain)

    assert bool(first.origin.refused) == (queue == "b")


TWICE = """
from shared import app

@app.task
def f():
    return 1
first = f
{more}
"""


def test_a_module_may_be_imported_anew_but_its_second_task_of_a_name_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "shared.py").write_text("from taskq import TaskQ\napp = TaskQ('unit', 'redis://127.0.0.1:1')\n")
    (tmp_path / "once.py").write_text(TWICE.format(more=""))
    (tmp_path / "twice.py").write_text(TWICE.format(more="@app.task\ndef f():\n    return 2\n"))

    once = importlib.import_module("once")
    first = once.f
    importlib.reload(once)
    del sys.modules["once"]
    importlib.import_module("once")

    assert not first.origin.refused
    assert "two tasks are named 'twice.f'" in importlib.import_module("twice").first.origin.refused


SCRIPT = """
from taskq import TaskQ
app = TaskQ("script", "redis://127.0.0.1:1", send_timeout=0.01)

@app.task
def f(): ...

print(f.name)
"""


@pytest.mark.parametrize("how", [(), ("-m", "cProfile"), ("-m", "trace", "--trackcalls")], ids=str)
def test_a_script_names_its_tasks_after_its_file_whatever_runs_it(tmp_path: Path, how: tuple[str, ...]) -> None:
    (tmp_path / "shop.py").write_text(SCRIPT)

    shown = subprocess.run([sys.executable, *how, "shop.py"], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert shown.stdout.splitlines()[0] == "shop.f"


@pytest.mark.parametrize("name", ["__main__", "__mp_main__"])  # of a script, and in a process it has spawned
def test_so_does_one_that_is_run_by_its_path_or_name(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(str(tmp_path))

    assert runpy.run_path(str(tmp_path / "shop.py"), run_name=name)["f"].name == "shop.f"
    assert runpy.run_module("shop", run_name=name)["f"].name == "shop.f"


def test_what_no_worker_could_import_runs_here_and_is_refused_when_it_is_sent(tmp_path: Path) -> None:
    lines = (
        SCRIPT
        + """
import asyncio
from taskq import ConfigError
assert f.apply().get() is None
async def asend(): await f.adelay()
async def amany(): await f.adelay_many([()])
for send in (f.delay, f.apply_async, lambda: app.enqueue_many([f.call()]), lambda: f.delay_many([()]),
             lambda: asyncio.run(asend()), lambda: asyncio.run(amany())):
    try:
        send()
    except ConfigError as error:
        assert "no worker can import" in str(error), error
    else:
        raise AssertionError(send)

@app.task(name="shop.f")
def named(): ...
try:
    named.delay()
except ConnectionError:
    print("sent")
"""
    )
    shown = subprocess.run([sys.executable, "-"], input=lines, cwd=tmp_path, capture_output=True, text=True)

    assert shown.stdout.splitlines() == ["__main__.f", "sent"], shown.stderr


# -- a bound task that is called as a function ------------------------------------------------------------------------


def test_a_bound_task_that_is_called_as_a_function_gets_a_context(app: TaskQ) -> None:
    @app.task(bind=True, name="look", queue="q")
    def look(self: Context, x: int, *, y: int = 2) -> list[object]:
        r = self.request
        return [self.name, r.task, r.queue, r.args, r.kwargs, r.retries, r.crashes, r.headers, r.eta, r.worker]

    assert look(1, y=3) == ["look", "look", "q", (1,), {"y": 3}, 0, 0, {}, None, ""]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        look()  # type: ignore[call-arg]


def test_each_such_call_has_an_id_of_its_own(app: TaskQ) -> None:
    @app.task(bind=True)
    async def look(self: Context) -> str:
        return self.request.id

    assert asyncio.run(look()) != asyncio.run(look())


def test_a_retry_in_such_a_call_is_raised_to_the_caller(app: TaskQ) -> None:
    @app.task(bind=True, max_retries=5)
    def ask(self: Context, exc: Exception | None = None) -> None:
        self.retry(exc, countdown=3)

    with pytest.raises(Retry) as caught:
        ask()
    assert caught.value.delay == 3
    with pytest.raises(KeyError, match="why"):
        ask(KeyError("why"))


def test_a_task_that_is_called_within_another_sees_its_own_call(app: TaskQ) -> None:
    @app.task(bind=True, name="inner")
    def inner(self: Context) -> str:
        return self.request.task

    @app.task(bind=True, name="outer")
    def outer(self: Context) -> list[str]:
        return [inner(), self.request.task]

    assert outer.apply().get() == ["inner", "outer"]
