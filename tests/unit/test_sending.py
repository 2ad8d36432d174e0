"""Options of a call: what cannot work is refused at the call, by name."""

from __future__ import annotations

from typing import Any

import pytest

from taskq import ConfigError, SerializationError, TaskQ

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
