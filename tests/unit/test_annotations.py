"""Plain values back to what annotations say."""

# ruff: noqa: UP007, UP045, RUF100  both ways of writing a union are meant

# No `from __future__ import annotations` here: the classes below stand in annotations as objects.
import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field

from taskq.message.codec import pack, unpack
from taskq.tasks.annotations import converter, hints_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@dataclass
class Shape:
    colour: Colour
    points: list[Point] = field(default_factory=list)
    made: date | None = None


@dataclass
class Tree:
    name: str
    children: list["Tree"] = field(default_factory=list)
    parent: Optional["Tree"] = None


class Model(BaseModel):
    name: str
    colour: Colour = Colour.RED


class Pair(NamedTuple):
    a: int
    b: int = 2


class Marked(NamedTuple):
    colour: Colour
    at: Point


class Card(TypedDict):
    colour: Colour
    points: NotRequired[list[Point]]


T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    one: T
    many: list[T] = field(default_factory=list)


class Renamed(BaseModel):
    user_id: int = Field(alias="userId")
    colour: Colour = Field(Colour.RED, validation_alias="paint", serialization_alias="tint")


class Nested(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Renamed

    @computed_field
    def double(self) -> int:
        return self.inner.user_id * 2


UserId = NewType("UserId", int)
Paint = NewType("Paint", Colour)

ROUND_TRIPS = [
    (Colour, Colour.RED),
    (Level, Level.LOW),
    (Point, Point(1, 2)),
    (Shape, Shape(Colour.BLUE, [Point(1), Point(2)], date(2024, 1, 2))),
    (Tree, Tree("a", [Tree("b", [Tree("c")])], Tree("root"))),
    (Model, Model(name="n", colour=Colour.BLUE)),
    (Pair, Pair(1, 3)),
    (Paint, Colour.RED),
    (Annotated[Colour, "a note"], Colour.RED),
    (Optional[Point], Point(1)),
    (Optional[Point], None),
    (Point | None, Point(1)),
    (Union[int, Point], 5),
    (Union[int, Point], Point(5)),
    (Union[Model, Point], Point(5)),
    (Union[Point, Model], Model(name="n")),
    (str | Colour, "red"),
    (list[Colour], [Colour.RED, Colour.BLUE]),
    (list[list[Point]], [[Point(1)], []]),
    (Sequence[Point], [Point(1)]),
    (dict[str, Point], {"a": Point(1)}),
    (dict[Colour, int], {Colour.RED: 1}),
    (Mapping[str, list[Model]], {"a": [Model(name="n")]}),
    (tuple[Point, ...], (Point(1), Point(2))),
    (tuple[int, Colour, str], (1, Colour.RED, "x")),
    (set[Colour], {Colour.RED, Colour.BLUE}),
    (frozenset[Colour], frozenset({Colour.RED})),
    (Optional[list[Point | None]], [Point(1), None]),
    (Iterable[Point], [Point(1)]),
    (Marked, Marked(Colour.RED, Point(1))),
    (Card, {"colour": Colour.RED, "points": [Point(1)]}),
    (Box[Point], Box(Point(1), [Point(2)])),
    (Box[Box[Colour]], Box(Box(Colour.RED))),
    (Renamed, Renamed(userId=1, paint=Colour.BLUE)),
    (Nested, Nested(inner=Renamed(userId=1))),
]


@pytest.mark.parametrize(("annotation", "value"), ROUND_TRIPS, ids=[str(annotation) for annotation, _ in ROUND_TRIPS])
def test_what_was_sent_is_what_arrives(annotation: Any, value: object) -> None:
    convert = converter(annotation)
    assert convert is not None

    arrived = convert(unpack(pack(value)))

    assert (arrived, type(arrived)) == (value, type(value))


@pytest.mark.parametrize(
    "annotation",
    [
        int, str, date, bytes, object, Any, None, UserId, Literal["a"], Optional[int], int | str,
        list, list[int], dict[str, int], tuple[int, ...], tuple[int, str], set[str], Annotated[int, "note"],
    ],
)  # fmt: skip
def test_what_arrives_as_it_is_needs_no_converter(annotation: Any) -> None:
    assert converter(annotation) is None


@pytest.mark.parametrize(
    ("annotation", "value", "error"),
    [
        (Colour, "green", ValueError),
        (Point, {"x": 1, "z": 2}, TypeError),
        (Point, {}, TypeError),
        (Point, [1, 2], TypeError),
        (Model, {"colour": "red"}, ValidationError),
        (Pair, [1, 2, 3], ValueError),
        (tuple[Colour, Colour], ["red"], ValueError),
        (list[Point], 5, TypeError),
    ],
)
def test_a_value_that_does_not_fit_is_an_error(annotation: Any, value: object, error: type[Exception]) -> None:
    convert = converter(annotation)
    assert convert is not None

    with pytest.raises(error):
        convert(value)


def test_a_value_that_is_already_one_is_left_alone() -> None:
    convert = converter(list[Point])
    assert convert is not None
    point = Point(1)

    assert convert([point])[0] is point


def test_annotations_as_text_are_resolved() -> None:
    def function(a: "Colour", b: "list[Point]") -> "Model": ...

    assert hints_of(function) == {"a": Colour, "b": list[Point], "return": Model}


def test_an_annotation_that_only_the_type_checker_knows_is_no_error() -> None:
    def function(a: "OnlyThere", b: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert hints_of(function) == {"b": int, "return": type(None)}


def test_so_is_one_of_a_class() -> None:
    @dataclass
    class Local:
        colour: "Colour"
        other: "OnlyThere"  # type: ignore[name-defined]  # noqa: F821

    convert = converter(Local)
    assert convert is not None

    assert convert({"colour": "red", "other": 1}) == Local(Colour.RED, 1)
