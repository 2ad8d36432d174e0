"""Middleware and hooks: what can be installed, in which order it is called, what its errors do."""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from taskq import Call, ConfigError, Context, Outgoing, RateLimited, Request, TaskError, TaskQ, current_request
from taskq.calls import hooking
from taskq.message.envelope import decode
from taskq.runs.execution import Executor
from taskq.tasks.hooks import ENDS, LIFE

Next = Callable[[], Any]


@pytest.fixture
def app() -> TaskQ:
    """An app that never speaks to a server."""
    return TaskQ("unit", "redis://127.0.0.1:1", send_timeout=0.01)


# -- around runs ------------------------------------------------------------------------------------------------------


def test_middleware_is_around_a_run_the_apps_outside_the_tasks_and_the_first_outermost(app: TaskQ) -> None:
    seen: list[str] = []

    def noting(name: str) -> Callable[[Request, Next], Any]:
        def middleware(request: Request, call_next: Next) -> Any:
            seen.append(f"{name} {request.task} {request.args}")
            value = call_next()
            seen.append(f"{name} got {value}")
            return value + 1

        return middleware

    @app.task(name="add", around_run=[noting("task 1"), noting("task 2")])
    def add(a: int, b: int = 0) -> int:
        return a + b

    app.around("run")(noting("app"))

    assert add.apply((1,), {"b": 2}).get() == 6
    order = ["app", "task 1", "task 2"]
    assert seen == [*(f"{name} add (1,)" for name in order), "task 2 got 3", "task 1 got 4", "app got 5"]


def test_middleware_around_async_tasks_is_async(app: TaskQ) -> None:
    seen: list[str] = []

    @app.around("arun")
    async def noting(request: Request, call_next: Callable[[], Awaitable[Any]]) -> Any:
        seen.append(request.task)
        await asyncio.sleep(0)
        return await call_next() * 2

    @app.task(name="double")
    async def double(a: int) -> int:
        await asyncio.sleep(0)
        return a

    @app.task(name="plain")
    def plain() -> int:
        return 1

    assert double.apply((4,)).get() == 8
    assert plain.apply().get() == 1
    assert seen == ["double"]


def test_what_a_sync_function_returns_unfinished_ends_inside_the_middleware(app: TaskQ) -> None:
    """An `async def` under a sync decorator: what is measured around it must be its run, not the making of it."""
    ends: list[str] = []

    async def inner() -> str:
        ends.append("body")
        return "value"

    @app.around("run")
    def noting(request: Request, call_next: Next) -> Any:
        value = call_next()
        ends.append(f"middleware has {value}")
        return value

    @app.task(name="t")
    def t() -> Any:
        return inner()

    assert t.apply().get() == "value"
    assert ends == ["body", "middleware has value"]


def test_a_bound_task_has_its_context_and_middleware_sees_the_arguments_without_it(app: TaskQ) -> None:
    @app.around("run")
    def look(request: Request, call_next: Next) -> Any:
        assert request == current_request()
        return request.args, call_next()

    @app.task(bind=True, name="t")
    def t(self: Context, x: int) -> str:
        return f"{self.request.task} {x}"

    assert t.apply((7,)).get() == ((7,), "t 7")


def test_middleware_may_answer_without_calling_on(app: TaskQ) -> None:
    @app.around("run")
    def cached(request: Request, call_next: Next) -> Any:
        return "from the cache"

    @app.task(name="t")
    def t() -> str:
        raise AssertionError("not to be called")

    assert t.apply().get() == "from the cache"


def test_an_error_of_middleware_is_one_of_the_task_and_is_retried_like_that(app: TaskQ) -> None:
    runs: list[int] = []

    @app.around("run")
    def failing(request: Request, call_next: Next) -> Any:
        runs.append(request.retries)
        if request.retries < 2:
            raise OSError("no database")
        return call_next()

    @app.task(name="t", autoretry_for=OSError, max_retries=2)
    def t() -> str:
        return "ran"

    assert t.apply().get() == "ran"
    assert runs == [0, 1, 2]


@pytest.mark.parametrize("kind", ["run", "arun", "enqueue"])
def test_call_next_is_called_once(app: TaskQ, kind: str) -> None:
    ran: list[int] = []

    def twice(subject: Any, call_next: Next) -> Any:
        call_next()
        return call_next()

    async def atwice(subject: Any, call_next: Next) -> Any:
        await call_next()
        return await call_next()

    def t() -> None:
        ran.append(1)

    async def at() -> None:
        ran.append(1)

    app.around(kind)(atwice if kind == "arun" else twice)  # type: ignore[call-overload]
    task = app.task(name="t")(at if kind == "arun" else t)

    said = "the middleware .*twice has called call_next.. twice; a call goes on once"
    with pytest.raises(Exception, match=said):
        task.apply().get()
    assert len(ran) == (kind != "enqueue")


def test_without_middleware_a_route_calls_the_function_itself(app: TaskQ) -> None:
    @app.task(name="t")
    def t() -> None: ...

    from taskq.runs.surround import surround

    assert surround(t, app.client.hooks) is t.function
    app.around("arun")(_awaiting)
    assert surround(t, app.client.hooks) is t.function
    app.around("run")(_passing)
    assert surround(t, app.client.hooks) is not t.function


async def _awaiting(request: Request, call_next: Next) -> Any:
    return await call_next()


def _passing(request: Any, call_next: Next) -> Any:
    return call_next()


# -- around sending ---------------------------------------------------------------------------------------------------


def sent_headers(call: Call) -> Any:
    from taskq.message import codec

    return codec.unpack(decode(call.message[1][:2] + bytes(8) + call.message[1][2:]).headers["user"])


def test_middleware_around_sending_changes_headers_and_options(app: TaskQ) -> None:
    @app.task(name="t")
    def t(a: int) -> None: ...

    given = {"mine": 1}

    @app.around("enqueue")
    def stamp(call: Outgoing, call_next: Callable[[], Call]) -> Call:
        assert (call.task, call.args, call.kwargs) == ("t", (1,), {})
        call.headers["tenant"] = "acme"
        call.options["queue"] = "elsewhere"
        call.options.setdefault("task_id", "chosen")
        return call_next()

    for made in (t.call(1), t.prepare_call((1,), headers=given), t.call_from(1), t.call_from((1,))):
        assert sent_headers(made)["tenant"] == "acme"
        assert made.handle().id == "chosen"
        assert decode(made.message[1][:2] + bytes(8) + made.message[1][2:]).queue == "elsewhere"
    assert given == {"mine": 1}, "what the caller gave is the caller's"
    assert sent_headers(t.prepare_call((1,), task_id="other", headers=given)) == {"mine": 1, "tenant": "acme"}


def test_a_call_that_middleware_refuses_is_the_callers_error(app: TaskQ) -> None:
    @app.task(name="t")
    def t() -> None: ...

    @app.around("enqueue")
    def closed(call: Outgoing, call_next: Callable[[], Call]) -> Call:
        raise PermissionError("closed on Sundays")

    for send in (t.delay, t.apply_async, t.apply, t.call, lambda: t.delay_many([()])):
        with pytest.raises(PermissionError, match="closed on Sundays"):
            send()
    with pytest.raises(PermissionError):
        asyncio.run(t.adelay())


def test_middleware_around_sending_must_hand_on_the_call_and_the_one_that_does_not_is_named(app: TaskQ) -> None:
    def forgets(call: Outgoing, call_next: Callable[[], Call]) -> Any:
        call_next()

    app.around("enqueue")(_passing)

    @app.task(name="t", around_enqueue=forgets)
    def t() -> None: ...

    with pytest.raises(ConfigError, match=r"forgets around 'enqueue' returned None: return what call_next"):
        t.call()


def test_arguments_are_checked_where_middleware_hands_the_call_on(app: TaskQ) -> None:
    @app.around("enqueue")
    def tidy(call: Outgoing, call_next: Callable[[], Call]) -> Call:
        call.kwargs.pop("debug", None)
        return call_next()

    @app.task(name="t")
    def t(a: int) -> None: ...

    t.prepare_call((1,), {"debug": True})
    with pytest.raises(TypeError):
        t.call()
    with pytest.raises(ConfigError, match="apply_async has no option quue; did you mean 'queue'"):
        t.prepare_call((1,), quue="x")


def test_a_debounced_call_passes_through_once(app: TaskQ) -> None:
    seen: list[str] = []

    @app.around("enqueue")
    def note(call: Outgoing, call_next: Callable[[], Call]) -> Call:
        seen.append(call.task)
        return call_next()

    @app.task(name="t", debounce=5)
    def t() -> None: ...

    t.call()
    assert seen == ["t"]


def test_a_periodic_entry_is_written_past_middleware(app: TaskQ) -> None:
    """It is written once and sent for years: what belongs to one call has no place in it."""

    @app.around("enqueue")
    def trace(call: Outgoing, call_next: Callable[[], Call]) -> Call:
        raise AssertionError("not to be called")

    @app.periodic("nightly", "@daily")
    @app.task(name="t")
    def t() -> None: ...

    assert "nightly" in app.entries


# -- hooks ------------------------------------------------------------------------------------------------------------


def test_hooks_are_told_how_a_run_ended_the_tasks_first(app: TaskQ) -> None:
    told: list[Any] = []

    def note(name: str) -> Callable[[Request, Any], None]:
        return lambda request, subject: told.append((name, request.task, request.retries, subject))

    @app.task(
        name="t", on_success=note("own success"), on_retry=note("own retry"), on_dead=None,
        on_failure=[note("own failure"), note("own failure 2")], autoretry_for=OSError, max_retries=1,
    )  # fmt: skip
    def t(error: str = "") -> str:
        if error:
            raise OSError(error)
        return "value"

    for event in ENDS:
        app.on(event)(note(event))  # type: ignore[call-overload]

    assert t.apply().get() == "value"
    assert told == [("own success", "t", 0, "value"), ("success", "t", 0, "value")]

    told.clear()
    with pytest.raises(TaskError, match="bad"):
        t.apply(("bad",)).get()
    assert [(name, retries) for name, _, retries, _ in told] == [
        ("own retry", 0), ("retry", 0), ("own failure", 1), ("own failure 2", 1), ("failure", 1), ("dead", 1),
    ]  # fmt: skip
    assert all(isinstance(error, OSError) for *_, error in told)
    assert told[-1][3].__traceback__ is None, "what the task held is let go of when they have been told"


def test_a_hook_sees_the_traceback(app: TaskQ) -> None:
    names: list[str] = []

    @app.on("failure")
    def look(request: Request, error: BaseException) -> None:
        frames = error.__traceback__
        while frames is not None:
            names.append(frames.tb_frame.f_code.co_name)
            frames = frames.tb_next

    @app.task(name="t")
    def t() -> None:
        raise ValueError("bad")

    with pytest.raises(TaskError):
        t.apply().get()
    assert names[-1] == "t"


def test_retries_and_the_end_without_a_dead_letter_are_told_apart(app: TaskQ) -> None:
    told: list[tuple[str, int, str]] = []
    for event in ENDS:

        def note(request: Request, subject: Any, event: str = event) -> None:
            told.append((event, request.retries, str(subject)))

        app.on(event)(note)  # type: ignore[call-overload]

    @app.task(name="t", bind=True, max_retries=1, dead_letter=False)
    def t(self: Context) -> None:
        self.retry(countdown=0) if self.request.retries == 0 else self.retry(ValueError("no"))

    with pytest.raises(TaskError):
        t.apply().get()
    assert told == [("retry", 0, "None"), ("failure", 1, "no")]


def test_a_value_that_cannot_be_written_is_a_failure_and_no_success(app: TaskQ) -> None:
    told: list[str] = []
    for event in ENDS:
        app.on(event)(lambda request, subject, event=event: told.append(event))  # type: ignore[call-overload]

    @app.task(name="t")
    def t() -> Any:
        return object()

    with pytest.raises(TaskError):
        t.apply().get()
    assert told == ["failure", "dead"]


def test_what_is_slowed_down_tells_no_hook(app: TaskQ) -> None:
    told: list[str] = []
    for event in ENDS:
        app.on(event)(lambda request, subject, event=event: told.append(event))  # type: ignore[call-overload]

    @app.task(name="t")
    def t() -> Any:
        raise RateLimited(5)

    with pytest.raises(TaskError):
        t.apply().get()
    assert told == []


@pytest.mark.parametrize("error", [ValueError("oops"), SystemExit(3), KeyboardInterrupt()])
def test_a_hook_that_raises_is_logged_by_its_name_and_changes_nothing(
    app: TaskQ, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    told: list[Any] = []

    @app.on("success")
    def broken(request: Request, value: Any) -> None:
        raise error

    app.on("success")(lambda request, value: told.append(value))

    @app.task(name="t")
    def t() -> str:
        return "value"

    assert t.apply().get() == "value"
    assert told == ["value"]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "broken for success of message" in record.getMessage()
    assert type(error).__name__ in record.getMessage()
    assert record.exc_info is not None


def test_an_async_hook_is_run_to_its_end_for_a_sync_task_too(app: TaskQ) -> None:
    told: list[Any] = []

    @app.on("success")
    async def note(request: Request, value: Any) -> None:
        await asyncio.sleep(0)
        told.append(value)

    @app.task(name="t")
    def t() -> int:
        return 5

    t.apply()
    assert told == [5]


def test_a_message_that_cannot_be_run_is_told_as_far_as_it_can_be_read(app: TaskQ) -> None:
    from taskq.runs.delivery import Delivery, Taken
    from taskq.runs.hooks import due

    told: list[tuple[str, str, str]] = []
    app.on("dead")(lambda request, error: told.append((request.id, request.task, request.queue)))

    @app.task(name="shop.t")
    def t() -> None: ...

    value = t.call().message[1]
    stored = value[:2] + bytes(8) + value[2:]
    executor = Executor(app.tasks, app.settings, "w", hooks=app.client.hooks)
    for raw_id, what in ((b"an-id", stored), (b"other", b"junk")):
        delivery = Delivery(raw_id, what, Taken(0.0, 0.0))
        executor.prepare(delivery)
        for hook in due(executor, delivery):
            hook.call()
    assert told == [("an-id", "shop.t", "shop.t"), ("other", "", "")]


# -- what can be installed --------------------------------------------------------------------------------------------


async def _async_hook(request: Any = None, subject: Any = None) -> None: ...


@pytest.mark.parametrize(
    ("install", "said"),
    [
        (lambda app: app.around("runs")(_passing), "there is no around('runs'); did you mean run or arun?"),
        (lambda app: app.on("on_failure")(_passing), "there is no on('on_failure'); did you mean failure?"),
        (lambda app: app.on("child_int")(_passing), "there is no on('child_int'); did you mean child_init"),
        (lambda app: app.on(5)(_passing), "there is no on(5)"),
        (lambda app: app.around("run")(_awaiting), "_awaiting is an async def, and must be a def: it is around sync"),
        (lambda app: app.around("arun")(_passing), "_passing must be an async def: it is around async tasks"),
        (lambda app: app.around("enqueue")(_awaiting), "_awaiting is an async def, and must be a def"),
        (lambda app: app.on("child_init")(_async_hook), "_async_hook is an async def, and must be a def: there is no"),
        (lambda app: app.around("run")(lambda: None), "is called with (request, call_next), but: too many positional"),
        (lambda app: app.on("worker_ready")(_passing), "is called with no arguments, but: missing a required argument"),
        (lambda app: app.on("dead")("print"), "on('dead') takes a function, not 'print'"),
        (lambda app: app.on("dead")(TaskQ), "on('dead') takes a function, not <class"),
        (lambda app: app.task(around_run=_awaiting)(lambda: 1), "around_run=: tests.unit.test_hooks._awaiting is an"),
        (lambda app: app.task(on_dead=5)(lambda: 1), "on_dead= takes a function, not 5"),
        (lambda app: app.task(on_child_init=_passing)(lambda: 1), "has no option on_child_init"),
        (lambda app: app.task(on_fail=_passing)(lambda: 1), "has no option on_fail; did you mean 'on_failure'?"),
        (lambda app: [app.around("run")(_passing) for _ in "12"], "_passing is installed already"),
    ],
)  # fmt: skip
def test_what_could_not_work_is_refused_at_once(app: TaskQ, install: Callable[[TaskQ], object], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        install(app)
    assert said in str(raised.value)


def test_what_comes_when_the_worker_has_begun_is_refused(app: TaskQ) -> None:
    app.client.hooks.close("the worker has begun")

    with pytest.raises(ConfigError, match=r"around\('run'\) comes too late: the worker has begun"):
        app.around("run")(_passing)


def test_every_way_to_write_a_function_can_be_installed(app: TaskQ) -> None:
    class Timed:
        def __call__(self, request: Request, call_next: Next) -> Any:
            return call_next()

        def method(self, request: Request, value: Any) -> None: ...

    app.around("run")(Timed())
    app.around("run")(functools.partial(_third, 1))
    app.on("success")(Timed().method)
    app.on("worker_init")(print)
    assert len(app.client.hooks.of("run")) == 2
    assert app.client.hooks.told
    assert set(LIFE).isdisjoint(ENDS)


def _third(first: int, request: Request, call_next: Next) -> Any:
    return call_next()


# -- entry points -----------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Install a package with a module of its own name and an entry point for it."""

    def install(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{hooking.GROUP}]\n{name} = {name}:install\n")
        importlib.invalidate_caches()

    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return install


def test_installed_packages_add_theirs_once_and_a_broken_one_is_named(
    app: TaskQ, installed: Callable[[str, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    installed("tq_good", "def install(app):\n    app.on('success')(lambda request, value: None)\n")
    installed("tq_broken", "import nowhere_to_be_found\n")
    installed("tq_wrong", "def install(app):\n    app.on('sucess')(print)\n")

    app.load_installed()
    app.load_installed()

    assert len(app.client.hooks.of("success")) == 1
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"the middleware {name} of {name} is broken, and left out" for name in ("tq_broken", "tq_wrong")]


def test_where_nothing_is_installed_no_metadata_is_read(app: TaskQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes a tenth of a second, in each worker and each child that is not forked."""
    monkeypatch.setitem(sys.modules, "importlib_metadata", None)  # an import of it would fail

    app.load_installed()
