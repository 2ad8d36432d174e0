"""Flow options: what a declaration may say, and what it becomes for the server."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from taskq import Breaker, Limit, RateLimited
from taskq.errors import ConfigError
from taskq.message import codec
from taskq.tasks.flow import Flow
from taskq.tasks.keys import Arguments, key_text
from taskq.tasks.limits import interval_ms

SECONDS = ("unique_for", "debounce", "throttle", "max_wait")
NO_SECONDS = [0, -1, True, math.nan, math.inf, 1e11, "5", [1]]


@pytest.mark.parametrize("value", NO_SECONDS)
@pytest.mark.parametrize("name", SECONDS)
def test_a_span_of_time_is_a_number_of_seconds(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be a number of seconds above 0"):
        Flow(**{name: value})


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"full_timeout": "5"}, "full_timeout must be"),
        ({"full_timeout": math.nan}, "full_timeout must be"),
        ({"full_timeout": None}, "full_timeout must be"),
        ({"max_length": 0}, "max_length must be"),
        ({"max_length": 2.0}, "max_length must be"),
        ({"limits": 5}, "a list of up to 8"),
        ({"limits": ["5/s"]}, "a list of up to 8"),
        ({"limits": [Limit(max_concurrency=1)] * 9}, "a list of up to 8"),
        ({"breaker": 0.5}, "breaker= takes a Breaker"),
        ({"fair_by": 5}, "fair_by must be the name of an argument or a function"),
        ({"unique_by": ["a"]}, "unique_by must be the name of an argument or a function"),
        ({"rate": "1/s", "key": 5}, "key must be the name of an argument or a function"),
        ({"fair_by": "a", "fair_weight": 2}, "fair_weight must be a function"),
        ({"key": "a"}, "give rate= or max_concurrency= as well"),
        ({"burst": 5}, "give rate= as well"),
        ({"fair_weight": len}, "give fair_by= as well"),
        ({"unique_by": "a"}, "give unique= or debounce= or throttle= as well"),
        ({"on_duplicate": "raise"}, "give unique= or debounce= or throttle= as well"),
        ({"throttle": 1, "unique_for": 5}, "give unique= as well"),
        ({"max_wait": 5}, "give debounce= as well"),
        ({"full_timeout": 5}, "give max_length= as well"),
        ({"debounce": 5, "max_wait": 4}, "max_wait=4 must not be below debounce=5"),
        ({"unique": "always"}, "unique must be"),
        ({"unique": "until_done", "throttle": 5}, "give one of"),
        ({"priority": 101}, "priority must be"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_declared(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Flow(**options)


@pytest.mark.parametrize(
    "options", [{"failures": "1"}, {"failures": 0}, {"of": 0}, {"pause": "1"}, {"pause": math.inf}]
)
def test_a_breaker_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="of a Breaker must be"):
        Breaker(**options)


@pytest.mark.parametrize(
    ("rate", "interval"),
    [("100/m", 600), ("5/10s", 2000), ("0.5/s", 2000), ("1/d", 86_400_000), ("1/100ms", 100), ("100000000/s", 1e-5)],
)
def test_a_rate_is_a_number_in_a_time(rate: str, interval: float) -> None:
    assert interval_ms(rate) == pytest.approx(interval)


@pytest.mark.parametrize(
    "rate",
    ["", "5", "5/x", "0/s", "5/0s", "-1/s", "1e3/s", "\u0665/s", "0.0000000001/d", "9999999999/s", "1/s" * 20, 5, None],
)
def test_a_rate_that_cannot_be_read_or_kept_is_refused(rate: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        interval_ms(rate)


@pytest.mark.parametrize("rate", ["10/s", "50/s", "1000/s"])
def test_the_burst_is_a_tenth_of_a_second_of_the_rate(rate: str) -> None:
    _, interval, burst, _ = str(Limit(rate).published("s")).split()
    assert int(burst) == 100 / float(interval)


@pytest.mark.parametrize(
    "keys",
    [
        [("a,b",), ("a", "b"), "a,b", "(a,b)"],
        [("a", ("b", "c")), ("a", "b", "c"), (("a", "b"), "c"), ("a", "b,c")],
        [(), ("",), "", ("", "")],
        ["a b", "a%20b", "a\nb"],
        ["x" * 101, "x" * 102, ("x" * 101,)],
    ],
)
def test_different_keys_have_different_texts_without_spaces(keys: list[Any]) -> None:
    texts = [key_text(key) for key in keys]
    assert len(set(texts)) == len(texts)
    assert all(len(text) <= 100 and not set(text) & set(" \n|") for text in texts)


@pytest.mark.parametrize("value", [1.5, UUID(int=5), True, "ä", "\ud800"])
def test_a_number_a_uuid_or_any_string_is_a_key(value: Any) -> None:
    assert key_text(value)


@pytest.mark.parametrize("value", [[1], {}, b"x", object(), (1, None), pytest.param(10**5000, id="too long")])
def test_what_is_no_key_is_refused_at_the_call(value: Any) -> None:
    with pytest.raises(ConfigError, match="unique_by of task t gave"):
        Flow(unique="until_done", unique_by="user").fields("t", Arguments({"user": value}))


@pytest.mark.parametrize("seconds", [0.0001, 0.0004])
def test_a_time_too_short_to_be_counted_is_a_millisecond_and_not_none(seconds: float) -> None:
    assert b"t1:" in Flow(throttle=seconds).fields("t", Arguments({}))


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, 1e11, "5", None, True])
def test_a_wait_that_is_none_is_an_error_of_the_task(seconds: Any) -> None:
    with pytest.raises(ConfigError, match="retry_after"):
        RateLimited(seconds)


@dataclass
class Order:
    lines: dict[str, int]


ONE, OTHER = {"a": 1, "b": [2, {"c": 3, "d": 4}]}, {"b": [2, {"d": 4, "c": 3}], "a": 1}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ONE, OTHER),
        ([ONE], [OTHER]),
        ((1, ONE), (1, OTHER)),
        ({1: "x", "1": "y", (2, 3): None}, {(2, 3): None, "1": "y", 1: "x"}),
        (Order({"x": 1, "y": 2}), Order({"y": 2, "x": 1})),
    ],
)
def test_equal_arguments_are_the_same_work_whatever_the_order_of_their_keys(one: Any, other: Any) -> None:
    assert Arguments({"value": one, "kwargs": ONE}).digest() == Arguments({"kwargs": OTHER, "value": other}).digest()


@pytest.mark.parametrize(
    "other", [{"a": 2, "b": 1}, {"a": 1}, {"a": 1, "b": 2, "c": 3}, [["a", 1], ["b", 2]], ("a", "b")]
)
def test_other_arguments_are_other_work(other: Any) -> None:
    assert Arguments({"value": {"a": 1, "b": 2}}).digest() != Arguments({"value": other}).digest()


def test_arguments_without_dicts_have_the_digest_they_always_had() -> None:
    """Producers of two versions may call the same task."""
    named = {"a": [1, -5, 2**70, 1.5, None, True, b"x", "é"], "b": (1, {3, 1}), "c": UUID(int=7)}
    flat = [word for item in named.items() for word in item]

    assert Arguments(named).digest() == hashlib.blake2b(codec.pack(flat), digest_size=16).hexdigest()
