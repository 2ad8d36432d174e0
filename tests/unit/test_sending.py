"""Options of a call: what cannot work is refused at the call, by name."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from taskq import Call, ConfigError, SerializationError, TaskQ

app = TaskQ("unit", "redis://nowhere")


@app.task
def any_call(*args: object, **kwargs: object) -> object:
    return args, kwargs


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"args": "text"}, "args must be a list or a tuple, not 'text'"),
        ({"args": b"bytes"}, "args must be a list or a tuple, not b'bytes'"),
        ({"args": {"a": 1}}, "args must be a list or a tuple, not {'a': 1}"),
        ({"args": 5}, "args must be a list or a tuple, not 5"),
        ({"kwargs": [("a", 1)]}, "kwargs must be a dict, not "),
        ({"headers": ["a"]}, "headers must be a dict, not "),
        ({"countdown": "3"}, "countdown must be a number of seconds"),
        ({"nonsense": 3}, "apply_async has no option nonsense"),
        ({"queue": ""}, "queue '' is not a name"),
        ({"task_id": 5}, "task_id 5 is not a name"),
    ],
)
def test_an_option_of_the_wrong_kind_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        any_call.apply_async(**options)

    assert said in str(caught.value)


def test_none_stands_for_no_arguments() -> None:
    assert any_call.apply(None, None).get() == ((), {})


def test_a_header_that_cannot_be_written_is_named_by_its_path() -> None:
    with pytest.raises(SerializationError, match=r"^headers\['user'\]\[0\]: cannot serialise object"):
        any_call.apply_async(headers={"user": [object()]})


def test_a_result_that_cannot_be_written_is_named_by_its_path() -> None:
    @app.task(name="unit.result")
    def result() -> object:
        return {"session": object()}

    error = result.apply().get(propagate=False)

    assert "result['session']: cannot serialise object" in str(error)


def test_a_tasks_expiry_is_that_of_its_calls_unless_they_say_otherwise() -> None:
    app = TaskQ("unit", "redis://127.0.0.1:1")

    @app.task(expires=60, max_length=5)
    def soon() -> None: ...

    def words(call: Call) -> bytes:
        return call.message[2]

    assert words(soon.call()).startswith(b"x60000")
    assert words(soon.prepare_call(countdown=1)).startswith(b"d1000x60000")
    assert words(soon.prepare_call(expires=5)).startswith(b"x5000")
    assert b"x" not in words(soon.prepare_call(expires=None))
    with pytest.raises(ConfigError, match=r"expires of task .* must be a number of seconds above 0"):
        app.task(expires=0, name="never")(lambda: None)


def test_many_calls_come_due_evenly_over_the_time_they_are_spread_over() -> None:
    app = TaskQ("unit", "redis://127.0.0.1:1")

    @app.task
    def send(reader: int, copy: str = "") -> None: ...

    prepare = send._preparing(600.0)
    calls = [prepare(item) for item in [(1,), {"reader": 2}, 3, (4, "b"), *range(96)]]
    due = sorted(int(call.message[2][1:]) for call in calls)

    gaps = [after - before for before, after in pairwise(due)]
    assert due[0] == 0
    assert due[-1] < 600_000
    assert max(gaps) <= 2 * 600_000 / len(calls)
    assert send._preparing(0.0) == send.call_from
    for spread in (-1, "long"):
        with pytest.raises(ConfigError, match="spread must be a number of seconds"):
            send.delay_many([1], spread=spread)  # type: ignore[arg-type]
