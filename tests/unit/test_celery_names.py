"""Celery's names are answered with what to use here; mistyped ones with the nearest."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import taskq
from taskq import ConfigError, Context, TaskQ, celery_names

ROOT = Path(__file__).parents[2]

app = TaskQ("unit-celery", "redis://127.0.0.1:1", send_timeout=0.01)


@app.task
def add(a: int, b: int = 2) -> int:
    return a + b


OWNERS: list[tuple[Any, dict[str, str]]] = [
    (add, celery_names.TASK),
    (app, celery_names.APP),
    (app.AsyncResult("an-id"), celery_names.RESULT),
    (Context.__new__(Context), celery_names.CONTEXT),
    (taskq, celery_names.MODULE),
]


@pytest.mark.parametrize(("owner", "table"), OWNERS, ids=lambda value: type(value).__name__)
def test_a_name_of_celerys_says_what_to_use_instead_and_where_it_is_explained(
    owner: Any, table: dict[str, str]
) -> None:
    for name in table.keys() - set(dir(owner)):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'") as caught:
            getattr(owner, name)
        assert celery_names.PAGE in str(caught.value)
        assert not hasattr(owner, name)
    assert (ROOT / celery_names.PAGE).exists()


@pytest.mark.parametrize(("owner", "table"), OWNERS, ids=lambda value: type(value).__name__)
def test_only_what_is_not_there_is_in_the_tables(owner: Any, table: dict[str, str]) -> None:
    allowed = {"retry", "request"} if isinstance(owner, Context) else set()  # a Context has them

    assert table.keys() & set(dir(owner)) <= allowed


@pytest.mark.parametrize("name", ["group", "chain", "chord", "signature", "Celery", "shared_task"])
def test_so_does_an_import(name: str) -> None:
    with pytest.raises(ImportError, match=f"'{name}'.*{celery_names.PAGE}"):
        exec(f"from taskq import {name}")
    assert not hasattr(taskq, name)


def test_other_names_are_what_python_says_of_them() -> None:
    with pytest.raises(AttributeError, match="no attribute 'dealy'"):
        add.dealy  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from taskq import nothing")
    with pytest.raises(AttributeError, match="did you mean 'Limit'"):
        taskq.Limt  # type: ignore[attr-defined]  # noqa: B018
    assert copy.copy(app.AsyncResult("x")) == pickle.loads(pickle.dumps(app.AsyncResult("x")))


def test_the_interpreter_can_suggest_a_name() -> None:
    code = "import taskq\napp = taskq.TaskQ('u', 'redis://127.0.0.1:1')\napp.AsyncResul\n"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "Did you mean: 'AsyncResult'?" in shown.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"acks_late": True}, "every message is settled after its task has ended"),
        ({"rate_limit": "10/m"}, 'use rate="40/m"'),
        ({"max_retires": 5}, "did you mean 'max_retries'?"),
        ({"prioritty": 5}, "did you mean 'priority'?"),
        ({"quee": "a"}, "did you mean 'queue'?"),
    ],
)
def test_an_option_of_a_task_that_is_none_is_answered_too(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        app.task(**options)(lambda: None)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"link": None}, "taskq has no signatures"),
        ({"countdwon": 5}, "did you mean 'countdown'?"),
        ({"retry": False}, "sending is repeated by itself"),
    ],
)
def test_so_is_one_of_a_call(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        add.apply_async((1,), **options)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("schedule", "options", "error"),
    [
        ("61 * * * *", {}, ConfigError),
        ("* * *", {}, ConfigError),
        ("0 0 31 2 *", {}, ConfigError),
        ("@dayly", {}, ConfigError),
        ("* * * * *", {"tz": "Mars/Olympus"}, ConfigError),
        ("* * * * *", {"jitter": -1}, ConfigError),
        ("* * * * *", {"nonsense": 1}, ConfigError),
        ("* * * * *", {"args": (1, 2, 3)}, TypeError),
        (5, {}, ConfigError),
    ],
)
def test_whatever_is_wrong_with_a_periodic_entry_says_which(
    schedule: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"^periodic entry nightly"):
        app.periodic("nightly", schedule, add, **{"args": (1,), **options})
