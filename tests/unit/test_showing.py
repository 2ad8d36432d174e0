"""Which arguments of a call operators may see: those that are named, whatever way they are given."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest

from taskq import ConfigError, TaskQ
from taskq.tasks.showing import shown_call, shown_parameters


def mixed(first: Any, /, second: Any, *rest: Any, third: Any = 3, **more: Any) -> None: ...


def told(show: Any) -> list[str]:
    return shown_parameters(signature(mixed), show, "mixed")


@pytest.mark.parametrize(
    ("show", "expected"),
    [
        (True, {"first": "1", "second": "2", "*2": "'x'", "third": "4", "other": "5"}),
        (["first"], {"first": "1"}),
        (("second", "third"), {"second": "2", "third": "4"}),
        ({"third"}, {"third": "4"}),
        ([], {}),
        (False, {}),
    ],
)
def test_what_is_named_is_shown_and_nothing_else(show: Any, expected: dict[str, str]) -> None:
    assert shown_call(told(show), [1, 2, "x"], {"third": 4, "other": 5}) == expected


def test_an_argument_is_known_by_its_name_also_if_it_is_given_by_it() -> None:
    assert shown_call(told(["second"]), [1], {"second": 2}) == {"second": "2"}


def test_a_name_for_keywords_only_is_not_mistaken_for_a_place() -> None:
    assert shown_call(told(["third"]), [1, 2, 3], {}) == {}


def test_a_long_value_is_cut() -> None:
    (text,) = shown_call(told(["first"]), ["x" * 100_000], {}).values()

    assert len(text) == 80


@pytest.mark.parametrize(
    ("show", "says"),
    [
        (["secnd"], "it has no argument 'secnd'; did you mean second"),
        ([7], "it has no argument '7'"),
        ("second", "must be True, False or a list of argument names, not 'second'"),
        (1, "must be True, False or a list of argument names, not 1"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_the_task_is_declared(show: Any, says: str) -> None:
    app = TaskQ("shown")

    with pytest.raises(ConfigError, match=says.replace("'", ".")):
        app.task(show_args=show)(mixed)


def test_the_context_of_a_bound_task_is_no_argument() -> None:
    app = TaskQ("shown")

    @app.task(bind=True, show_args=True)
    def bound(self: Any, order: int) -> None: ...

    assert bound.shown == ["order", "*"]
