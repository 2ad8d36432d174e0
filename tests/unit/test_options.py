"""The table of options and what takes them at run time say the same."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest

from taskq import TaskQ
from taskq.errors import ConfigError
from taskq.tasks import options
from taskq.tasks.definition import Definition
from taskq.tasks.flow import Flow
from taskq.tasks.hooks import OPTIONS as HOOK_OPTIONS
from taskq.tasks.options import CALL_OPTIONS, CALL_RETRIES, TASK_OPTIONS, TickOptions
from taskq.tasks.retry_options import RetryOptions


def names_of(cls: type[Any]) -> list[str]:
    return [field.name for field in fields(cls)]


def test_each_option_of_a_task_is_in_the_table_and_none_else() -> None:
    own = [
        name
        for name, parameter in inspect.signature(Definition).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("retry", "flow", "hooks")
    ]

    assert sorted(TASK_OPTIONS) == sorted([*own, *names_of(Flow), *names_of(RetryOptions), *HOOK_OPTIONS])


@pytest.mark.parametrize(("group", "taken_by"), [("Turns", Flow), ("Retries", RetryOptions)])
def test_options_that_belong_together_are_taken_together(group: str, taken_by: type[Any]) -> None:
    assert sorted(getattr(options, group).__annotations__) == sorted(names_of(taken_by))


def test_a_call_has_the_options_of_a_tick_and_what_a_tick_has_of_its_own() -> None:
    assert set(CALL_OPTIONS) - set(TickOptions.__annotations__) == {"countdown", "eta", "task_id"}
    assert set(TickOptions.__annotations__) < set(CALL_OPTIONS)


def test_each_option_of_a_call_is_taken(app: TaskQ) -> None:
    task = app.task(name="t")(print)
    given: dict[str, Any] = {
        **dict.fromkeys(CALL_OPTIONS), "task_id": "one", "retry_backoff": 1, "retry_backoff_max": 5,
        "retry_jitter": False, "default_retry_delay": 1,
    }  # fmt: skip

    assert task.prepare_call(**given).message[0] == b"one"
    assert set(CALL_RETRIES) < set(CALL_OPTIONS)


def test_an_option_that_there_is_not_is_told_with_the_nearest(app: TaskQ) -> None:
    task = app.task(name="t")(print)

    with pytest.raises(ConfigError, match="apply_async has no option countdwon; did you mean 'countdown'"):
        task.apply_async(countdwon=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"@app\.task has no option max_retry; did you mean 'max_retries'"):
        app.task(max_retry=3)(print)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=r"@app\.task has no option acks_late: every message is settled after"):
        app.task(acks_late=True)(print)  # type: ignore[call-overload]
