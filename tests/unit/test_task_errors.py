"""The error that ``get()`` raises is one of the task's own class, if that is loaded here; nothing of it is called."""

from __future__ import annotations

import pickle
import sys
from copy import copy
from types import ModuleType
from typing import Any

import pytest

from taskq import MaxRetriesExceeded, TaskError, TaskQ, UnknownResult
from taskq.errors import task_error


class CardDeclined(ValueError):
    """Takes more than a text, and counts its making."""

    made = 0

    def __init__(self, code: int, bank: str) -> None:
        super().__init__(f"{bank} says {code}")
        type(self).made += 1
        self.code = code

    def __new__(cls, *args: Any) -> CardDeclined:
        cls.made += 1
        return super().__new__(cls)

    class Twice(Exception):
        """A class inside another."""


class Refusing(type):
    """A metaclass that lets nothing be derived."""

    def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> Any:
        if bases != (Exception,):
            raise TypeError("not from me")
        return super().__new__(cls, name, bases, space)


class Final(Exception, metaclass=Refusing):
    """Cannot be derived from."""


class NoError:
    """No exception at all."""


def test_an_error_of_ones_own_is_caught_by_its_class_and_none_of_its_code_runs() -> None:
    before = CardDeclined.made

    with pytest.raises(CardDeclined, match="bank says 5") as caught:
        raise task_error(f"{__name__}.CardDeclined", "bank says 5", "the worker's traceback")

    error: Any = caught.value
    assert isinstance(error, TaskError)
    assert (error.type, error.traceback, str(error)) == (
        f"{__name__}.CardDeclined",
        "the worker's traceback",
        "bank says 5",
    )
    assert CardDeclined.made == before
    for again in (copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(again), str(again), again.type) == (type(error), str(error), error.type)
    assert CardDeclined.made == before


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"{__name__}.CardDeclined.Twice", CardDeclined.Twice),
        ("KeyError", KeyError),
        ("UnicodeDecodeError", UnicodeDecodeError),
        ("json.decoder.JSONDecodeError", __import__("json").JSONDecodeError),
        ("taskq.errors.MaxRetriesExceeded", MaxRetriesExceeded),
    ],
)
def test_what_is_loaded_is_what_is_raised(name: str, kind: type[Exception]) -> None:
    error = task_error(name, "why", "")

    assert isinstance(error, kind) and isinstance(error, TaskError) and str(error) == "why"


@pytest.mark.parametrize(
    "name",
    [
        "no.such.Class", "", ".", "os.path", "SystemExit", "BaseException", "ExceptionGroup", "builtins", "crashed",
        f"{__name__}.NoError", f"{__name__}.Final", f"{__name__}.test.<locals>.Own", "a..b",
        "taskq.errors.UnknownResult", "taskq.errors.BrokerUnavailable",
    ],
)  # fmt: skip
def test_all_else_is_a_plain_task_error_with_the_name_in_its_text(name: str) -> None:
    error = task_error(name, "why", "")

    assert type(error) is TaskError
    assert str(error) == f"{name}: why"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_error_of_gets_own_is_told_from_a_tasks() -> None:
    assert not isinstance(task_error("taskq.errors.UnknownResult", "in the task", ""), UnknownResult)


def test_nothing_is_imported_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = ModuleType("lazy_one")
    asked: list[str] = []
    lazy.__getattr__ = asked.append  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy_one", lazy)
    monkeypatch.delitem(sys.modules, "wsgiref.simple_server", raising=False)

    for name in ("lazy_one.Error", "wsgiref.simple_server.Error"):
        assert type(task_error(name, "why", "")) is TaskError
    assert not asked
    assert "wsgiref.simple_server" not in sys.modules


def test_a_pickle_of_it_is_read_where_its_class_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("elsewhere")
    module.Mine = type("Mine", (Exception,), {"__module__": "elsewhere"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    pickled = pickle.dumps(task_error("elsewhere.Mine", "why", "where"))
    monkeypatch.delitem(sys.modules, "elsewhere")

    again = pickle.loads(pickled)

    assert (type(again), again.type, again.traceback) == (TaskError, "elsewhere.Mine", "where")


def test_a_task_that_fails_here_raises_it() -> None:
    app = TaskQ("unit", "redis://127.0.0.1:1")

    @app.task(name="pay")
    def pay() -> None:
        raise CardDeclined(5, "bank")

    with pytest.raises(CardDeclined, match="bank says 5") as caught:
        pay.apply().get()
    assert isinstance(caught.value, TaskError)
