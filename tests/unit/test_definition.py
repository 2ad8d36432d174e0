"""What a task is: its name, its queue, its signature."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq.errors import ConfigError, DecodeError
from taskq.message.codec import pack_call
from taskq.tasks.definition import Definition
from taskq.tasks.flow import Flow


# fmt: off
def nothing(): ...
def one(a): ...
def two(a, b=5): ...
def only_positions(a, b=1, /): ...
def a_position(a, /, b, c=2): ...
def only_names(*, a, b=1): ...
def names(a, *, b, c=3): ...
def rest(a, *args, b=1): ...
def others(a, **kwargs): ...
def everything(a, /, b, *args, c, d=4, **kwargs): ...
def defaults(a=[], b=object(), c="x"): ...  # noqa: B006, B008
async def coroutine(a, b): ...
# fmt: on


FUNCTIONS: list[Callable[..., Any]] = [
    nothing, one, two, only_positions, a_position, only_names, names, rest, others, everything, defaults, coroutine,
]  # fmt: skip


def complaint(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> str | None:
    """What calling raises, or None."""
    try:
        made = function(*args, **kwargs)
        if hasattr(made, "close"):
            made.close()  # a coroutine
    except TypeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@given(st.lists(st.none(), max_size=4), st.dictionaries(st.sampled_from(["a", "b", "c", "d", "x"]), st.none()))
def test_a_wrong_call_is_the_very_error_that_calling_the_function_is(
    function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> None:
    assert complaint(Definition(function).check, args, kwargs) == complaint(function, args, kwargs)


def bound(self, a, b=1): ...
def bound_rest(self, *args, **kwargs): ...
def bound_position(self, /, a): ...


@given(st.lists(st.none(), max_size=3), st.dictionaries(st.sampled_from(["a", "b", "x", "self"]), st.none()))
def test_a_bound_task_is_called_without_its_context(args: list[Any], kwargs: dict[str, Any]) -> None:
    for function in (bound, bound_rest):
        accepted = complaint(Definition(function, bind=True).check, args, kwargs) is None
        try_it = "self" not in kwargs and complaint(function, [None, *args], kwargs) is None
        assert accepted == (try_it or (function is bound_rest and "self" in kwargs))
    assert complaint(Definition(bound_position, bind=True).check, args, kwargs) == complaint(
        lambda a: None, args, kwargs
    ) or complaint(Definition(bound_position, bind=True).check, args, kwargs)


def test_bind_needs_a_parameter() -> None:
    with pytest.raises(ConfigError, match="takes no parameter for the context"):
        Definition(nothing, bind=True).check  # noqa: B018


def test_a_default_that_runs_code_is_not_run_again() -> None:
    assert Definition(defaults).check() is None


def test_a_lambda_and_a_nested_function_are_checked_too() -> None:
    check = Definition(lambda x: x, name="squares").check

    check(1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        check()


def test_names_follow_module_and_function_and_every_task_has_its_queue() -> None:
    def inner() -> None: ...

    assert (Definition(one).name, Definition(one).queue) == (f"{__name__}.one", f"{__name__}.one")
    assert Definition(inner).name.endswith("test_names_follow_module_and_function_and_every_task_has_its_queue.inner")
    assert (Definition(one, name="n").name, Definition(one, name="n").queue) == ("n", "n")
    assert (Definition(one, queue="q").name, Definition(one, queue="q").queue) == (f"{__name__}.one", "q")


def test_a_task_looks_like_its_function() -> None:
    def documented() -> None:
        """Say something."""

    task = Definition(documented, name="n")

    assert (task.__doc__, task.__name__, task.__wrapped__) == ("Say something.", "documented", documented)
    assert repr(task) == "<Definition n>"
    assert Definition(coroutine).is_async
    assert not task.is_async


def generator():
    yield 1


async def async_generator():
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator, int, 5, None, "name"])
def test_what_cannot_be_a_task_is_refused(function: Any) -> None:
    with pytest.raises(ConfigError):
        Definition(function)


@pytest.mark.parametrize("option", ["name", "queue"])
@pytest.mark.parametrize("value", ["a b", "ä", "x" * 201, 5])
def test_what_is_no_name_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match="is not a name"):
        Definition(one, **{option: value})


def fingerprint(source: str) -> bytes:
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return Definition(namespace["f"], name="n").fingerprint


def test_the_fingerprint_changes_with_the_parameters_only() -> None:
    texts = ["a", "b", "a, b", "a=1", "*, a", "a, /", "*a", "**a", "a, *, b", "a, b=1"]
    prints = [fingerprint(f"def f({text}): pass") for text in texts]

    assert len(set(prints)) == len(texts)
    assert fingerprint("def f(a): pass") == fingerprint("def f(a: int) -> str: return 'other'")
    assert fingerprint("def f(a=1): pass") == fingerprint("def f(a=2): pass")
    assert all(len(print_) == 4 for print_ in prints)


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int


def converted(a: Colour, b: list[Point], *more: Colour, c: Point, **others: Colour) -> dict[str, Point]: ...


def test_arguments_are_loaded_as_annotated() -> None:
    task = Definition(converted)
    body = pack_call((Colour.RED, [Point(1)], Colour.RED, Colour.RED), {"c": Point(2), "d": Colour.RED})

    args, kwargs = task.load(body)

    assert args == [Colour.RED, [Point(1)], Colour.RED, Colour.RED]
    assert kwargs == {"c": Point(2), "d": Colour.RED}
    assert task.convert_result is not None
    assert task.convert_result({"k": {"x": 5}}) == {"k": Point(5)}


def test_a_positional_argument_may_come_by_name() -> None:
    args, kwargs = Definition(converted).load(pack_call((), {"b": [Point(1)], "a": Colour.RED, "c": Point(2)}))

    assert (args, kwargs) == ([], {"a": Colour.RED, "b": [Point(1)], "c": Point(2)})


def test_plain_annotations_cost_nothing() -> None:
    def plain(a: int, b: str = "", *args: float, **kwargs: bytes) -> None: ...

    assert Definition(plain).convert is None
    assert Definition(plain).convert_result is None


def test_a_bound_tasks_context_is_not_converted() -> None:
    def with_context(self: Point, a: Colour) -> None: ...

    assert Definition(with_context, bind=True).load(pack_call((Colour.RED,), {})) == ([Colour.RED], {})


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x90"])
def test_a_body_that_cannot_be_read_is_an_error_of_ours(body: bytes) -> None:
    with pytest.raises(DecodeError):
        Definition(one).load(body)


def test_arguments_have_names_whichever_way_they_are_given() -> None:
    named = Definition(everything).named

    assert named(1, 2, c=3) == {"a": 1, "b": 2, "args": (), "c": 3, "d": 4}
    assert named(1, 2, 5, 6, c=7, d=8, a=9) == {"a": 9, "b": 2, "args": (5, 6), "c": 7, "d": 8}
    assert Definition(a_position).named(1, b=3) == {"a": 1, "b": 3, "c": 2}


@pytest.mark.parametrize(
    "flow", [{"fair_by": "x"}, {"unique": "until_done", "unique_by": "x"}, {"rate": "1/s", "key": "x"}]
)
def test_a_key_is_an_argument_that_the_function_can_have(flow: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="='x' of task two is not one of its arguments: a, b"):
        Definition(two, name="two", flow=Flow(**flow))

    Definition(others, flow=Flow(**flow))  # it may come as **kwargs


@pytest.mark.parametrize("option", ["bind", "ignore_result", "dead_letter", "at_most_once"])
def test_yes_is_no_truth(option: str) -> None:
    wrong: Any = {option: "no"}

    with pytest.raises(ConfigError, match=f"{option} of task two must be True or False, not 'no'"):
        Definition(two, name="two", **wrong)
