"""One delivery from its bytes to its outcome."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import msgpack
import pytest
from tenacity import retry_if_result, stop_after_attempt, wait_fixed

from taskq import (
    Context,
    Limit,
    MaxRetriesExceeded,
    Postponed,
    RateLimited,
    ResultTimeout,
    Retry,
    TaskError,
    TaskQ,
    WouldDeadlock,
    current_request,
)
from taskq.calls.task import Task
from taskq.message.codec import pack_call, unpack, unpack_call
from taskq.message.details import read_error_detail
from taskq.message.envelope import decode, encode_envelope
from taskq.message.head import encode_head
from taskq.message.outcome import Again, Dead, Ended, Outcome, Passed
from taskq.runs.delivery import Delivery, Taken, current
from taskq.runs.errors_as_text import format_error, safe_text, type_name
from taskq.runs.execution import Executor

NOW = 1_000_000_000.0
ID = b"an-id"


@pytest.fixture
def app() -> TaskQ:
    """An app that never speaks to a server."""
    return TaskQ("unit", "redis://127.0.0.1:1", send_timeout=0.01)


def stored(
    task: Task[..., Any] | str,
    *args: Any,
    headers: dict[str, Any] | None = None,
    body: bytes | None = None,
    id_: bytes = ID,
    expires: float | None = None,
    **kwargs: Any,
) -> bytes:
    """A message as a worker takes it."""
    name = task if isinstance(task, str) else task.name
    known = {} if isinstance(task, str) else {"sig": task.fingerprint}
    head = encode_head(name, "q")
    stamps = struct.pack(">d", NOW - 500) + (b"" if expires is None else struct.pack(">d", expires))
    body = pack_call(args, kwargs) if body is None else body
    return (
        head[:1]
        + bytes([expires is not None])
        + stamps
        + head[2:]
        + encode_envelope(id_, known | (headers or {}), body)
    )


def executor(app: TaskQ) -> Executor:
    return Executor(app.tasks, app.settings, "worker-1")


def run(app: TaskQ, value: bytes, now: float = NOW, crashes: int = 0) -> Outcome:
    """Do what a lane does with a message."""
    steps = executor(app)
    delivery = Delivery(ID, value, Taken(now, time.monotonic(), crashes))
    if (outcome := steps.prepare(delivery)) is not None:
        return outcome
    token = current.set(delivery)
    try:
        result = delivery.task.function(*delivery.args, **delivery.kwargs)
    except BaseException as error:
        return steps.failed(delivery, error)
    finally:
        current.reset(token)
    return steps.succeeded(delivery, result)


def dead(outcome: Outcome | None) -> tuple[str, dict[str, Any]]:
    assert isinstance(outcome, Dead)
    assert outcome.result in (b"F" + outcome.detail, b"")
    return outcome.reason, read_error_detail(outcome.detail)


def again(outcome: Outcome) -> tuple[Again, dict[str, Any]]:
    assert isinstance(outcome, Again)
    return outcome, decode(outcome.value).headers


# -- the way of a good call -------------------------------------------------------------------------------------------


def test_a_value_is_the_result(app: TaskQ) -> None:
    @app.task
    def add(a: int, b: int = 2) -> int:
        return a + b

    for value in (stored(add, 1), stored(add, 1, b=2), stored(add, b=2, a=1)):
        assert run(app, value) == (ID, b"S\x03")


def test_what_a_head_says_for_scripts_is_read_over_and_what_was_learnt_of_it_is_kept_once(app: TaskQ) -> None:
    @app.task(fair_by="tenant", limits=[Limit("5/s", key="user")])
    def mail(tenant: str, user: int) -> str:
        return f"{tenant} {user}"

    steps = executor(app)
    for user in range(20):
        raw_id, value, _ = mail.call(f"tenant-{user % 3}", user).message
        delivery = Delivery(raw_id, value[:2] + struct.pack(">d", NOW) + value[2:], Taken(NOW, time.monotonic()))
        assert steps.prepare(delivery) is None
        assert delivery.args == [f"tenant-{user % 3}", user]
        assert (delivery._envelope is None) == (user > 0)
    assert len(steps._routes) == 1


def test_a_head_that_is_cut_short_is_a_dead_letter_even_when_its_task_is_known(app: TaskQ) -> None:
    @app.task(priority=1)
    def mail() -> None: ...

    steps = executor(app)
    raw_id, value, _ = mail.call().message
    value = value[:2] + struct.pack(">d", NOW) + value[2:]
    assert steps.prepare(Delivery(raw_id, value, Taken(NOW, 0.0))) is None
    for n in range(12, len(value)):
        assert isinstance(steps.prepare(Delivery(raw_id, value[:n], Taken(NOW, 0.0))), Dead)


def test_an_envelope_under_another_id_is_a_dead_letter_also_of_a_task_that_has_run_before(app: TaskQ) -> None:
    """Two envelopes that were swapped, or one that was copied, would run under a name that is not theirs."""
    task = app.task(name="t")(lambda n: n)
    run_by = executor(app)
    ids = [b"%016d" % n for n in range(3)]
    values = [task.call(n).message[1] for n in range(3)]
    values = [value[:2] + struct.pack(">d", NOW) + value[2:] for value in values]
    own = [decode(value).id for value in values]

    assert run_by.prepare(Delivery(own[0], values[0], Taken(NOW, 0.0))) is None
    assert run_by.prepare(Delivery(own[1], values[1], Taken(NOW, 0.0))) is None, "the fast path"
    for id_, value in ((own[2], values[1]), (own[1], values[2]), (ids[0], values[0]), (own[0][:15], values[0])):
        assert dead(run_by.prepare(Delivery(id_, value, Taken(NOW, 0.0))))[0] == "undecodable"


def test_arguments_whose_making_ends_the_process_politely_are_refused(app: TaskQ) -> None:
    class Last:
        pass

    def leave(value: object) -> Last:
        raise SystemExit(0)

    task = app.task(name="t")(lambda n: n)
    task.convert = lambda args, kwargs: (leave(args), kwargs)

    reason, detail = dead(executor(app).prepare(Delivery(ID, stored(task, 1), Taken(NOW, 0.0))))

    assert (reason, detail["message"]) == ("bad-arguments", "0")


@pytest.mark.parametrize("by", ["task", "call"])
def test_an_ignored_result_is_not_kept(app: TaskQ, by: str) -> None:
    @app.task(ignore_result=by == "task")
    def big() -> bytes:
        return b"x" * 10_000_000

    assert run(app, stored(big, headers={"ignore": True} if by == "call" else {})) == (ID, b"")


def test_a_call_may_keep_the_result_its_task_would_drop(app: TaskQ) -> None:
    @app.task(ignore_result=True)
    def one() -> int:
        return 1

    assert run(app, stored(one, headers={"ignore": False})) == (ID, b"S\x01")


def test_a_bound_task_sees_its_request(app: TaskQ) -> None:
    seen: list[Any] = []

    @app.task(bind=True)
    def look(self: Context, a: int, *, b: int) -> None:
        seen.append((self.request, self.name, self.task, current_request()))

    headers = {"retries": 2, "user": msgpack.packb({"k": "v"}), "eta": 5000.0}
    run(app, stored(look, 1, b=2, headers=headers), crashes=1)

    request, name, task, also = seen[0]
    assert (request.id, request.task, request.args, request.kwargs) == ("an-id", look.name, (1,), {"b": 2})
    assert (request.retries, request.crashes, request.queue, request.worker) == (2, 1, "q", "worker-1")
    assert (request.headers, request.eta) == ({"k": "v"}, datetime.fromtimestamp(5, timezone.utc))
    assert (name, task) == (look.name, look)
    assert request.idempotency_key == "an-id"
    assert also == request
    assert current_request() is None


def test_an_older_producers_call_is_checked_against_the_signature(app: TaskQ) -> None:
    @app.task
    def add(a: int, b: int) -> int:
        return a + b

    assert run(app, stored(add, 1, 2, headers={"sig": b"old!"})) == (ID, b"S\x03")
    reason, detail = dead(run(app, stored(add, 1, headers={"sig": b"old!"})))
    assert reason == "bad-arguments"
    assert "missing 1 required positional argument: 'b'" in detail["message"]


# -- errors -----------------------------------------------------------------------------------------------------------


class Strange(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


class Surrogate(Exception):
    def __str__(self) -> str:
        return "a\ud800b"


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (KeyError("k"), "KeyError", "'k'"),
        (SystemExit(3), "SystemExit", "3"),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
        (GeneratorExit(), "GeneratorExit", ""),
        (MemoryError("all"), "MemoryError", "all"),
        (RecursionError("deep"), "RecursionError", "deep"),
        (Strange(), f"{__name__}.Strange", "<Strange whose __str__ raised RuntimeError>"),
        (Surrogate(), f"{__name__}.Surrogate", "a\\ud800b"),
        (ValueError("x" * 10_000), "ValueError", "x" * 4096),
        (ExceptionGroup("many", [ValueError("one")]), "ExceptionGroup", "many (1 sub-exception)"),
        (StopIteration(5), "StopIteration", "5"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else None,
)
def test_whatever_a_task_raises_it_has_failed_and_is_kept(
    app: TaskQ, error: BaseException, kind: str, text: str
) -> None:
    @app.task
    def fail() -> None:
        raise error

    reason, detail = dead(run(app, stored(fail)))

    assert reason == "failed"
    assert (detail["type"], detail["message"], detail["worker"], detail["retries"]) == (kind, text, "worker-1", 0)
    assert "in fail" in detail["traceback"]
    assert "taskq/execution" not in detail["traceback"]


@pytest.mark.parametrize("ignored", [True, False])
@pytest.mark.parametrize("kept", [True, False])
def test_a_failure_is_stored_unless_ignored_and_kept_unless_told_otherwise(
    app: TaskQ, ignored: bool, kept: bool
) -> None:
    @app.task(dead_letter=kept, ignore_result=ignored)
    def fail() -> None:
        raise ValueError

    outcome = run(app, stored(fail))

    assert isinstance(outcome, Dead if kept else Ended)
    assert bool(outcome.result) == (not ignored)
    assert kept or outcome.counter == "failed"


@pytest.mark.parametrize("value", [object(), lambda: 1, [{"a": object()}], "\ud800", TaskError])
def test_a_result_that_cannot_be_written_fails_the_task_with_that_reason(app: TaskQ, value: object) -> None:
    @app.task
    def odd() -> object:
        return value

    reason, detail = dead(run(app, stored(odd)))

    assert (reason, detail["type"]) == ("failed", "taskq.errors.SerializationError")
    assert "cannot serialise" in detail["message"]


def test_a_result_above_the_limit_fails_the_task_with_that_reason() -> None:
    app = TaskQ("unit", "redis://127.0.0.1:1", max_message_bytes=1000)

    @app.task
    def big(n: int) -> bytes:
        return b"x" * n

    assert isinstance(run(app, stored(big, 900)), tuple)
    assert "more than max_message_bytes=1000" in dead(run(app, stored(big, 1100)))[1]["message"]


@pytest.mark.parametrize("headers", [{}, {"ignore": True}], ids=["plain", "with options"])
def test_a_message_above_the_limit_is_not_read(headers: dict[str, object]) -> None:
    app = TaskQ("unit", "redis://127.0.0.1:1", max_message_bytes=1000)

    @app.task
    def length(data: bytes) -> int:
        return len(data)

    steps, id_ = executor(app), b"i" * 16

    def prepare(size: int) -> Outcome | None:
        value = stored(length, b"x" * size, headers=headers, id_=id_)
        return steps.prepare(Delivery(id_, value, Taken(NOW, time.monotonic())))

    assert (prepare(1), prepare(4900)) == (None, None)
    reason, detail = dead(prepare(5100))
    assert (reason, "max_message_bytes=1000" in detail["message"]) == ("undecodable", True)


def test_a_long_traceback_is_kept_by_its_end() -> None:
    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError("x" * 100_000 + "the end")

    try:
        deep(300)
    except ValueError as error:
        text = format_error(error)

    assert len(text) <= 32_768
    assert text.endswith("the end\n")


def test_names_and_texts_of_errors() -> None:
    assert type_name(ValueError()) == "ValueError"
    assert type_name(TaskError()) == "taskq.errors.TaskError"
    assert safe_text(ValueError("ä")) == "ä"


# -- retries ----------------------------------------------------------------------------------------------------------


def test_a_retry_carries_what_the_policy_needs_next_time(app: TaskQ) -> None:
    @app.task(autoretry_for=ValueError, default_retry_delay=7, max_retries=2)
    def fail() -> None:
        raise ValueError("why")

    first, headers = again(run(app, stored(fail)))
    assert (first.id, first.delay, first.counter) == (ID, 7, "retried")
    assert (headers["retries"], headers["first"], headers["idle"], headers["slept"]) == (1, NOW, 7, 7)
    assert headers["error"] == "ValueError: why"
    second, headers = again(run(app, first.value, now=NOW + 8000))
    assert (headers["retries"], headers["first"], headers["idle"], headers["slept"]) == (2, NOW, 14, 7)
    reason, detail = dead(run(app, second.value, now=NOW + 16_000))
    assert (reason, detail["type"], detail["retries"]) == ("failed", "ValueError", 2)


def test_time_over_all_attempts_counts_by_the_servers_clock(app: TaskQ) -> None:
    from tenacity import stop_after_delay

    @app.task(autoretry_for=ValueError, wait=wait_fixed(1), stop=stop_after_delay(60))
    def fail() -> None:
        raise ValueError

    assert isinstance(run(app, stored(fail, headers={"first": NOW - 59_000, "retries": 50})), Again)
    assert isinstance(run(app, stored(fail, headers={"first": NOW - 61_000, "retries": 1})), Dead)


def test_a_refused_value_is_retried_and_then_fails(app: TaskQ) -> None:
    @app.task(retry=retry_if_result(lambda v: v is None), wait=wait_fixed(1), stop=stop_after_attempt(2))
    def maybe(value: int | None) -> int | None:
        return value

    assert run(app, stored(maybe, 5)) == (ID, b"S\x05")
    first, _ = again(run(app, stored(maybe, None)))
    assert "refuses the value None" in dead(run(app, first.value))[1]["message"]


def test_a_calls_own_options_replace_the_tasks(app: TaskQ) -> None:
    @app.task(autoretry_for=ValueError, max_retries=0)
    def fail() -> None:
        raise ValueError

    assert isinstance(run(app, stored(fail)), Dead)
    asked, headers = again(run(app, stored(fail, headers={"retry": {"max_retries": 1, "default_retry_delay": 3}})))
    assert asked.delay == 3
    assert headers["retry"] == {"max_retries": 1, "default_retry_delay": 3}


def asking(app: TaskQ, **options: Any) -> Callable[..., Outcome]:
    """A bound task that asks for a retry with these options; returns how to run it."""

    @app.task(bind=True, max_retries=2, default_retry_delay=9)
    def ask(self: Context) -> None:
        try:
            self.retry(**options)
        except Exception as error:  # a task's own net must let the request pass, or at least raise it again
            raise error from None

    return lambda **headers: run(app, stored(ask, headers=headers))


def test_a_task_may_ask_for_a_retry(app: TaskQ) -> None:
    outcome, headers = again(asking(app, exc=ValueError("not yet"))())
    assert (outcome.delay, outcome.counter, headers["retries"]) == (9, "retried", 1)
    assert headers["error"] == "ValueError: not yet"


@pytest.mark.parametrize(("countdown", "delay"), [(0, 0), (2.5, 2.5), (-1, 0)])
def test_the_countdown_of_a_request_is_obeyed(app: TaskQ, countdown: float, delay: float) -> None:
    assert again(asking(app, countdown=countdown)())[0].delay == delay


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"countdown": float("inf")}, "self.retry(countdown=...) takes a number of seconds below 1e+10, not inf"),
        ({"countdown": float("nan")}, "not nan"),
        ({"countdown": "soon"}, "not 'soon'"),
        ({"max_retries": "many"}, "self.retry(max_retries=...) takes a whole number or None, not 'many'"),
        ({"countdown": 1, "eta": datetime.now(timezone.utc)}, "either countdown= or eta=, not both"),
        ({"eta": datetime(2030, 1, 1)}, "has no time zone"),
        ({"eta": 5}, "self.retry(eta=...) takes a datetime, not 5"),
        ({"expires": "soon"}, "self.retry(expires=...) takes a datetime or seconds, not 'soon'"),
        ({"expires": -1}, "not -1"),
        ({"queue": "a queue"}, "queue 'a queue' is not a name"),
        ({"exc": "no"}, "self.retry(exc=...) takes an exception, such as ValueError(...), not 'no'"),
    ],
)
def test_a_request_that_cannot_be_met_is_a_failure(app: TaskQ, request_: dict[str, Any], text: str) -> None:
    _, detail = dead(asking(app, **request_)())

    assert detail["type"] == "taskq.errors.ConfigError"
    assert text in detail["message"]
    assert "in ask" in detail["traceback"]


def test_a_policy_that_raises_makes_a_dead_letter_that_tells_both_errors(app: TaskQ) -> None:
    @app.task(retry=lambda state: state.nothing)
    def fail() -> None:
        raise ValueError("why")

    reason, detail = dead(run(app, stored(fail)))

    assert (reason, detail["type"]) == ("failed", "AttributeError")
    assert "ValueError: why" in detail["traceback"]
    assert "(Raised by the retry policy of the task" in detail["traceback"]


def test_without_retries_left_the_request_fails_with_its_reason(app: TaskQ) -> None:
    _, detail = dead(asking(app, exc=ValueError("at last"))(retries=2))
    assert (detail["type"], detail["message"]) == ("ValueError", "at last")
    _, detail = dead(asking(app)(retries=2))
    assert detail["type"] == "taskq.errors.MaxRetriesExceeded"


def test_a_request_may_bring_its_own_limit(app: TaskQ) -> None:
    assert isinstance(asking(app, max_retries=5)(retries=4), Again)
    assert isinstance(asking(app, max_retries=0)(retries=0), Dead)
    assert isinstance(asking(app)(retries=4, retry={"max_retries": 5}), Again)


def test_a_task_sees_that_no_retries_are_left_and_may_end_otherwise(app: TaskQ) -> None:
    seen: list[BaseException] = []

    @app.task(bind=True, max_retries=1)
    def ask(self: Context, exc: bool) -> str:
        try:
            self.retry(exc=ValueError("at last") if exc else None)
        except (MaxRetriesExceeded, ValueError) as error:
            seen.append(error)
        return "marked as failed"

    assert isinstance(run(app, stored(ask, True)), Again)
    for exc in (True, False):
        assert run(app, stored(ask, exc, headers={"retries": 1})) == (ID, b"S\xb0marked as failed")
    assert list(map(type, seen)) == [ValueError, MaxRetriesExceeded]
    assert "has been retried 1 time, and may not be again" in str(seen[1])


@pytest.mark.parametrize("exc", [None, ValueError("own")])
def test_what_is_raised_when_no_retries_are_left_is_not_retried_by_the_policy(
    app: TaskQ, exc: ValueError | None
) -> None:
    @app.task(bind=True, autoretry_for=Exception, max_retries=5)
    def ask(self: Context) -> None:
        self.retry(exc, max_retries=0)

    _, detail = dead(run(app, stored(ask)))
    assert detail["type"] == ("taskq.errors.MaxRetriesExceeded" if exc is None else "ValueError")


def test_an_error_raised_instead_is_judged_as_any(app: TaskQ) -> None:
    @app.task(bind=True, autoretry_for=OSError, max_retries=5, default_retry_delay=7)
    def ask(self: Context) -> None:
        try:
            self.retry(max_retries=0)
        except MaxRetriesExceeded:
            raise OSError("try that again") from None

    assert again(run(app, stored(ask)))[0].delay == 7


def test_the_error_that_is_handled_is_the_reason(app: TaskQ) -> None:
    @app.task(bind=True, max_retries=1)
    def ask(self: Context) -> None:
        try:
            raise KeyError("missing")
        except KeyError:
            self.retry()

    _, headers = again(run(app, stored(ask)))
    assert headers["error"] == "KeyError: 'missing'"
    _, detail = dead(run(app, stored(ask, headers={"retries": 1})))
    assert detail["type"] == "taskq.errors.MaxRetriesExceeded"
    assert "KeyError: 'missing'" in detail["traceback"]


def test_a_run_that_asks_without_raising_goes_on_and_runs_again_however_it_ends(app: TaskQ) -> None:
    @app.task(bind=True, ignore_result=True)
    def ask(self: Context, fails: bool) -> str:
        granted = self.retry(countdown=3, throw=False)
        if fails:
            raise OSError("afterwards")
        return f"in {granted.delay} s"

    for fails in (False, True):
        assert again(run(app, stored(ask, fails)))[0].delay == 3


def test_another_run_may_have_other_arguments(app: TaskQ) -> None:
    @app.task(bind=True)
    def ask(self: Context, page: int, size: int = 10) -> None:
        if page == 9:
            self.retry(args=["one", "two", "three"])
        self.retry(args=(page + 1,), kwargs={"size": 20})

    outcome, _ = again(run(app, stored(ask, 1)))
    assert unpack_call(decode(outcome.value).body) == ([2], {"size": 20})
    _, detail = dead(run(app, stored(ask, 9)))
    assert detail["type"] == "TypeError"


def test_the_arguments_by_which_a_message_waits_cannot_be_changed(app: TaskQ) -> None:
    @app.task(bind=True, unique="until_done")
    def ask(self: Context, page: int) -> None:
        self.retry(args=(page + 1,))

    _, detail = dead(run(app, stored(ask, 1)))
    assert "cannot change the arguments" in detail["message"]


def test_another_run_may_be_at_a_moment_and_may_expire(app: TaskQ) -> None:
    @app.task(bind=True)
    def ask(self: Context) -> None:
        self.retry(eta=datetime.fromtimestamp(NOW / 1000 + 60, timezone.utc), expires=90)

    outcome, _ = again(run(app, stored(ask)))
    assert outcome.delay == pytest.approx(60, abs=1)
    assert decode(outcome.value).expires == pytest.approx(NOW + 90_000, abs=1000)
    later, _ = again(run(app, outcome.value))
    assert decode(later.value).expires == pytest.approx(NOW + 90_000, abs=1000)
    assert isinstance(run(app, outcome.value, now=NOW + 100_000), Ended)


def test_another_run_may_be_in_another_queue(app: TaskQ) -> None:
    @app.task(bind=True)
    def ask(self: Context, queue: str) -> None:
        self.retry(queue=queue, countdown=0)

    outcome, _ = again(run(app, stored(ask, "slow")))
    assert (outcome.queue, decode(outcome.value).queue, outcome.counter) == ("slow", "slow", "retried")
    assert again(run(app, stored(ask, "q")))[0].queue == ""


def test_a_retry_that_a_task_makes_itself_is_asked_of_its_policy(app: TaskQ) -> None:
    @app.task(bind=True, max_retries=1)
    def ask(self: Context) -> None:
        raise Retry(ValueError("by hand"), 4)

    assert again(run(app, stored(ask)))[0].delay == 4
    assert dead(run(app, stored(ask, headers={"retries": 1})))[1]["type"] == "ValueError"


def test_a_run_that_was_too_early_is_no_attempt(app: TaskQ) -> None:
    @app.task(bind=True, max_retries=0, autoretry_for=Exception)
    def early(self: Context, seconds: float, why: str = "") -> None:
        self.postpone(seconds, why)

    first, headers = again(run(app, stored(early, 60, "the file")))
    assert (first.delay, first.counter, headers["postponed"], headers["early"]) == (60, "postponed", 1, "the file")
    assert "retries" not in headers
    second, headers = again(run(app, first.value))
    assert (second.counter, headers["postponed"]) == ("postponed", 2)
    for seconds in (-1, float("nan"), 1e10, "soon", True):
        assert "self.postpone takes a number" in dead(run(app, stored(early, seconds)))[1]["message"]


def test_what_was_postponed_and_then_retried_waits_for_its_retry(app: TaskQ) -> None:
    @app.task(bind=True)
    def both(self: Context) -> None:
        self.retry(countdown=1)

    _, headers = again(run(app, stored(both, headers={"postponed": 3, "early": "the file"})))
    assert "postponed" not in headers


def test_a_call_that_postpones_itself_here_tells_the_caller(app: TaskQ) -> None:
    @app.task(bind=True)
    def early(self: Context) -> None:
        self.postpone(60, "the file")

    with pytest.raises(Postponed, match="in 60 s: the file"):
        early()
    with pytest.raises(TaskError, match="in 60 s: the file"):
        early.apply().get()


# -- what must not run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("expires", "runs"), [(NOW - 1, False), (NOW, False), (NOW + 1, True)])
def test_an_expired_message_is_discarded_with_that_reason(app: TaskQ, expires: float, runs: bool) -> None:
    @app.task
    def one() -> int:
        return 1

    outcome = run(app, stored(one, expires=expires))

    assert outcome == ((ID, b"S\x01") if runs else Ended(ID, "discarded", b"Xexpired"))


def test_an_unknown_task_is_handed_on_once_and_a_dead_letter_when_nobody_knew_it_for_long(app: TaskQ) -> None:
    first = run(app, stored("no.such"))
    assert isinstance(first, Passed)
    assert (first.delay, first.again) == (3600, False)
    assert decode(first.value).headers == {"unknown": NOW}

    outcome = run(app, first.value, now=NOW + 3_590_000)
    assert outcome == Passed(ID, b"", 10, again=True), "its time is not over: it waits on, as it is"

    reason, detail = dead(run(app, first.value, now=NOW + 3_600_000))
    assert reason == "unknown-task"
    assert "'no.such'" in detail["message"]


def test_a_task_of_another_lane_is_handed_on_with_its_arguments_unread(app: TaskQ) -> None:
    task = app.task(name="t")(lambda n: n)
    task.convert = lambda args, kwargs: pytest.fail("they are its lane's to read")

    outcome = Executor(app.tasks, app.settings, "worker-1", ["other"]).prepare(
        Delivery(ID, stored(task, 1), Taken(NOW, 0.0))
    )

    assert outcome == Passed(ID, b"", 60, again=False)


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x93\x90\x80\xc0", b"\x92\x90", b"\x92\x91\xc7\x01\x63\x00\x80"])
def test_a_body_that_cannot_be_read_is_a_dead_letter(app: TaskQ, body: bytes) -> None:
    @app.task
    def one(*args: object) -> None: ...

    assert dead(run(app, stored(one, body=body)))[0] == "undecodable"


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x02" + bytes(30), stored("t")[:-1], stored("t", id_=b"other")])
def test_a_message_that_cannot_be_read_is_a_dead_letter(app: TaskQ, value: bytes) -> None:
    assert dead(run(app, value))[0] == "undecodable"


def test_an_argument_that_is_not_what_its_annotation_says_is_a_dead_letter(app: TaskQ) -> None:
    import enum

    class Colour(enum.Enum):
        RED = "red"

    def paint(colour: Any) -> None: ...

    paint.__annotations__["colour"] = Colour
    task = app.task(paint)

    reason, detail = dead(run(app, stored(task, "green")))
    assert reason == "bad-arguments"
    assert detail["message"].startswith("args[0]: ValueError: 'green' is not a valid")


# -- here and now -----------------------------------------------------------------------------------------------------


def test_apply_takes_the_whole_way_without_a_server(app: TaskQ) -> None:
    runs: list[int] = []

    @app.task(bind=True, autoretry_for=ValueError, max_retries=3, default_retry_delay=1000)
    def third_time(self: Context, pair: tuple[int, int]) -> tuple[int, ...]:
        runs.append(self.request.retries)
        if len(runs) < 3:
            raise ValueError("not yet")
        return (*pair, self.request.retries)

    result = third_time.apply(((1, 2),), task_id="mine", headers={"a": 1})

    assert (result.id, result.state, result.get()) == ("mine", "SUCCESS", (1, 2, 2))
    assert runs == [0, 1, 2]


def test_apply_fails_as_a_worker_would(app: TaskQ) -> None:
    @app.task
    def fail() -> None:
        raise KeyError("gone")

    result = fail.apply()

    assert (result.state, result.failed(), result.ready()) == ("FAILURE", True, True)
    assert isinstance(result.result, KeyError)
    with pytest.raises(KeyError, match="gone") as caught:
        result.get()
    assert isinstance(caught.value, TaskError)
    assert result.get(propagate=False) is result.result
    assert "raise KeyError" in (result.traceback or "")


def test_apply_runs_coroutines_and_refuses_wrong_arguments(app: TaskQ) -> None:
    @app.task
    async def double(x: int) -> int:
        return x * 2

    assert double.apply((4,)).get() == 8
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        double.apply()


def test_apply_of_a_task_without_result_has_succeeded(app: TaskQ) -> None:
    @app.task(ignore_result=True)
    def quiet() -> int:
        return 5

    assert quiet.apply().state == "SUCCESS"


def test_calling_a_task_is_calling_the_function(app: TaskQ) -> None:
    @app.task
    def same(x: object) -> object:
        return x

    thing = object()
    assert same(thing) is thing


def test_waiting_inside_a_task_is_refused_with_the_reason(app: TaskQ) -> None:
    @app.task
    def inner() -> None:
        app.AsyncResult("other").get()

    _, detail = dead(run(app, stored(inner)))

    assert detail["type"] == "taskq.errors.WouldDeadlock"
    assert issubclass(WouldDeadlock, RuntimeError)
    assert not issubclass(ResultTimeout, WouldDeadlock)


def test_a_failure_is_logged_once_with_its_task_and_id(app: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    @app.task(name="shop.fail")
    def fail() -> None:
        raise ValueError("why")

    with caplog.at_level(logging.WARNING, "taskq.task"):
        run(app, stored(fail))

    assert [r.message.splitlines()[0] for r in caplog.records] == ["task shop.fail[an-id] failed: why"]
    assert unpack(b"\xc0") is None


@pytest.mark.parametrize("options", [{}, {"ignore_result": True}, {"ignore_result": True, "dead_letter": False}])
@pytest.mark.parametrize("error", [RateLimited(5), KeyError("gone")], ids=lambda error: type(error).__name__)
def test_apply_answers_with_the_error_of_whatever_did_not_return(
    app: TaskQ, options: dict[str, Any], error: Exception
) -> None:
    @app.task(**options)
    def fail() -> None:
        raise error

    result = fail.apply()

    assert result.state == "FAILURE"
    with pytest.raises(TaskError, match="told to wait" if isinstance(error, RateLimited) else "gone"):
        result.get()
