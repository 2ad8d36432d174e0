"""What could not come back as it was sent is refused at the call."""

# ruff: noqa: UP045  both ways of writing a union are meant

# No `from __future__ import annotations` here: the classes below stand in annotations as objects.
import dataclasses
import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar

import pytest
from pydantic import BaseModel, Field, field_serializer
from typing_extensions import TypeAliasType, Unpack

from taskq import ConfigError, SerializationError, TaskQ
from taskq.message.codec import pack, unpack
from taskq.tasks.annotations import converter
from taskq.tasks.vetting import vetter


@dataclass
class Cat:
    name: str


@dataclass
class Dog:
    name: str
    breed: str = "mutt"


@dataclass
class Puppy(Dog):
    weeks: int = 8


@dataclass
class Old(Dog):
    pass


@dataclass
class Twin:
    name: str


class CatModel(BaseModel):
    name: str


class DogModel(BaseModel):
    name: str
    breed: str = "mutt"


class Tagged(BaseModel):
    kind: Literal["tagged"] = "tagged"
    name: str


@dataclass
class OtherTag:
    name: str
    kind: Literal["other"] = "other"


class Colour(enum.Enum):
    RED = "red"


class Size(enum.Enum):
    RED = "red"
    SMALL = "s"


class Pair(NamedTuple):
    a: int
    b: int


class Point(NamedTuple):
    x: int
    y: int


class CatDict(TypedDict):
    name: Cat


class DogDict(TypedDict):
    name: Cat
    breed: Colour


T = TypeVar("T")
B = TypeVar("B", bound=Dog)
F = TypeVar("F", bound="Dog")
C = TypeVar("C", Cat, Dog)


@dataclass
class Box(Generic[T]):
    it: T


@dataclass
class Owner:
    pet: Cat | Dog
    others: dict[str, Cat | Dog | None] = field(default_factory=dict)


@dataclass
class PetBox(Box[Cat | Dog]):
    """A subclass says what the variables of its base stand for."""


U = TypeVar("U")


@dataclass
class Boxes(Box[list[U]], Generic[U]):
    one: U


@dataclass
class DogBoxes(Boxes[Dog]):
    pass


class GermanDay(BaseModel):
    day: date

    @field_serializer("day")
    def german(self, day: date) -> str:
        return day.strftime("%d.%m.%Y")


class IsoDay(BaseModel):
    day: date

    @field_serializer("day")
    def iso(self, day: date) -> str:
        return day.isoformat()


class Place(enum.Enum):
    HOME = Cat("tom")


Pet = TypeAliasType("Pet", Cat | Dog)
Pets = TypeAliasType("Pets", list[Pet])
Tree = TypeAliasType("Tree", "Cat | list[Tree]")
Either = TypeAliasType("Either", dict[str, T] | list[T], type_params=(T,))
Named = NewType("Named", Dog)

COMES_BACK = [
    (Cat | Dog, Dog("rex")),
    (Cat | Dog, Cat("tom")),
    (Dog | Cat, Cat("tom")),
    (CatModel | DogModel, DogModel(name="rex", breed="pug")),
    (CatModel | DogModel, CatModel(name="tom")),
    (DogModel | CatModel, CatModel(name="tom")),
    (Cat | DogModel, DogModel(name="rex")),
    (Tagged | OtherTag, OtherTag("x")),
    (Annotated[CatModel | DogModel, "note"], DogModel(name="rex")),
    (Optional[Cat | Dog], Dog("rex")),
    (list[Cat | Dog], [Dog("rex"), Cat("tom")]),
    (list[Cat] | list[Dog], [Dog("rex")]),
    (list[int] | list[Cat], [Cat("tom")]),
    (list[int] | list[Cat], [1]),
    (dict[str, Cat | Dog], {"a": Dog("rex")}),
    (tuple[Cat | Dog, ...], (Dog("rex"), Cat("tom"))),
    (Sequence[Cat | Dog], [Dog("rex")]),
    (Literal["all"] | Cat, Cat("tom")),
    (Literal["all"] | Cat, "all"),
    (dict[str, int] | Cat, Cat("tom")),
    (dict[str, int] | Cat, {"name": 5}),
    (Any | Dog, Dog("rex")),
    (Colour | str, Colour.RED),
    (Colour | str, "blue"),
    (Size | Colour, Size.SMALL),
    (Literal[Colour.RED, "x"], Colour.RED),
    (Pair | str, Pair(1, 2)),
    (Pair | str, "ab"),
    (Annotated[CatDict, "note"] | DogDict, {"name": Cat("tom"), "breed": Colour.RED}),
    (CatDict | DogDict, {"name": Cat("tom"), "breed": Colour.RED}),
    (Owner, Owner(Dog("rex"), {"a": Cat("tom"), "b": None})),
    (Box[Cat | Dog], Box(Dog("rex"))),
    (PetBox, PetBox(Dog("rex"))),
    (DogBoxes, DogBoxes([Dog("a")], Dog("b"))),
    (Boxes[Dog], Boxes([Dog("a")], Dog("b"))),
    (IsoDay, IsoDay(day=date(2030, 1, 31))),
    (Named | Cat, Dog("rex")),
    (B, Dog("rex")),
    (F, Dog("rex")),
    (C, Dog("rex")),
    (list[C], [Dog("rex"), Cat("tom")]),
    (Pet, Dog("rex")),
    (Pets, [Dog("rex"), Cat("tom")]),
    (Tree, [Cat("a"), [Cat("b"), []]]),
    (Either[Dog], {"a": Dog("rex")}),
    (Either[Dog], [Dog("rex")]),
    (Final[Dog], Dog("rex")),
    (Dog | int, 5),
    (Dog | float, 5),
    (Dog, {"name": "rex"}),
]


@pytest.mark.parametrize(("annotation", "value"), COMES_BACK, ids=[f"{a} {v!r:.20}" for a, v in COMES_BACK])
def test_the_class_that_was_sent_arrives(annotation: Any, value: Any) -> None:
    convert, look = converter(annotation), vetter(annotation)
    assert convert is not None

    arrived = convert(unpack(pack(value)))
    if look is not None:
        look("value", value)

    expected = Dog("rex") if annotation is Dog else value
    assert (arrived, type(arrived)) == (expected, type(expected))


@dataclass
class WithInitVar:
    scale: dataclasses.InitVar[int]
    size: int = 0


@dataclass
class WithDefault:
    scale: dataclasses.InitVar[int] = 1
    size: int = 0


@dataclass(init=False)
class OwnInit:
    size: int

    def __init__(self, text: str) -> None:
        self.size = len(text)


class Excluding(BaseModel):
    name: str
    password: str = Field("", exclude=True)


class ExcludingRequired(BaseModel):
    password: str = Field(exclude=True)


@dataclass
class Account:
    login: Excluding


REFUSED = [
    (Cat | Twin, Twin("x"), "would arrive as Cat, another member of the union"),
    (str | Colour, Colour.RED, "would arrive as str"),
    (Size | Colour, Colour.RED, "would arrive as Size"),
    (Pair | Point, Point(1, 2), "would arrive as Pair"),
    (list[Cat | Twin], [Cat("a"), Twin("x")], r"^value\[1\]: Twin would arrive as Cat"),
    (list[Cat] | list[Twin], [Twin("x")], "items of another class"),
    (Dog, Puppy("rex"), "Dog has no field weeks"),
    (list[Dog], [Puppy("rex")], r"^value\[0\]: Puppy could not be read back"),
    (Owner, Owner(Puppy("rex")), r"^value\.pet: Puppy"),
    (CatModel, DogModel(name="rex"), "DogModel would lose something and arrive as CatModel"),
    (WithInitVar, WithInitVar(3), "missing a required argument: 'scale'"),
    (dict[str, WithInitVar], {"a": WithInitVar(3)}, r"^value\['a'\]: WithInitVar cannot be made again"),
    (OwnInit, OwnInit("abc"), "cannot be made again"),
    (Excluding, Excluding(name="n", password="p"), "its field password is excluded"),
    (ExcludingRequired, ExcludingRequired(password="p"), "its field password is excluded"),
    (GermanDay, GermanDay(day=date(2030, 1, 31)), "GermanDay could not be read back"),
    (list[GermanDay], [GermanDay(day=date(2030, 1, 31))], r"^value\[0\]: GermanDay"),
    (Place, Place.HOME, "is not found by its value"),
    (Colour, Size.SMALL, "Size could not be read back"),
    (Account, Account(Excluding(name="n", password="p")), r"^value\.login: Excluding"),
]


@pytest.mark.parametrize(("annotation", "value", "why"), REFUSED, ids=[f"{a} {v!r:.20}" for a, v, _ in REFUSED])
def test_what_would_arrive_as_something_else_is_refused(annotation: Any, value: Any, why: str) -> None:
    look = vetter(annotation)
    assert look is not None

    with pytest.raises(SerializationError, match=why):
        look("value", value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Dog, Old("rex")),  # a subclass with the same fields becomes what the annotation says
        (WithDefault, WithDefault(3)),
        (Excluding, Excluding(name="n")),
        (Cat | Twin, {"name": "x"}),
        (Cat, {"wrong": 1}),  # for the worker to say
    ],
)
def test_what_can_be_made_again_is_sent(annotation: Any, value: Any) -> None:
    look = vetter(annotation)
    assert look is not None
    look("value", value)


MADE: list[str] = []


@dataclass
class Counted:
    name: str

    def __post_init__(self) -> None:
        MADE.append(self.name)


def test_nothing_is_made_of_what_is_sent_plainly_and_no_class_twice() -> None:
    look = vetter(list[Counted | Dog])
    assert look is not None
    sent = [{"name": "plain"}, Dog("rex")]
    MADE.clear()

    look("value", sent)
    plain = vetter(list[Counted])
    assert plain is not None
    plain("value", [{"name": "plain"}, Counted("own")])

    assert "plain" not in MADE
    assert MADE.count("own") == 1


# -- tasks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def app() -> TaskQ:
    """An app that never speaks to a server."""
    return TaskQ("unit", "redis://127.0.0.1:1", send_timeout=0.01)


class Options(TypedDict, total=False):
    colour: Colour


def test_every_way_to_call_refuses_with_the_path(app: TaskQ) -> None:
    @app.task
    def adopt(pet: Cat | Twin, *more: Dog, **rest: Dog) -> None: ...

    for send in (
        lambda: adopt.delay(Twin("x")),
        lambda: adopt.call(Twin("x")),
        lambda: adopt.apply_async((Twin("x"),)),
        lambda: adopt.delay_many([(Twin("x"),)]),
        lambda: adopt.apply((Twin("x"),)),
    ):
        with pytest.raises(SerializationError, match=r"args\[0\]: Twin would arrive as Cat"):
            send()
    with pytest.raises(SerializationError, match=r"args\[1\]: Puppy"):
        adopt.call(Cat("tom"), Puppy("rex"))
    with pytest.raises(SerializationError, match=r"kwargs\['b'\]: Puppy"):
        adopt.call(Cat("tom"), b=Puppy("rex"))


def test_a_result_that_would_arrive_as_something_else_is_a_failure(app: TaskQ) -> None:
    @app.task
    def find(twin: bool) -> Cat | Twin:
        return Twin("x") if twin else Cat("tom")

    assert find.apply((False,)).get() == Cat("tom")
    with pytest.raises(Exception, match="result: Twin would arrive as Cat"):
        find.apply((True,)).get()


def test_keyword_arguments_of_a_typed_dict_arrive_as_annotated(app: TaskQ) -> None:
    @app.task
    def paint(**options: Unpack[Options]) -> bool:
        return options["colour"] is Colour.RED

    assert paint.apply((), {"colour": Colour.RED}).get()


def test_classes_may_stand_below_the_task_that_takes_and_returns_them(app: TaskQ) -> None:
    namespace: dict[str, Any] = {"app": app, "__name__": __name__}
    exec(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@app.task\n"
        "def turn(it: Below) -> Below:\n"
        "    return Below(it.x + 1)\n"
        "@dataclass\n"
        "class Below:\n"
        "    x: int\n",
        namespace,
    )

    assert namespace["turn"].apply((namespace["Below"](1),)).get() == namespace["Below"](2)


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


def test_an_exception_that_is_a_frozen_dataclass_fails_its_task_as_what_it_is(app: TaskQ) -> None:
    @app.task(autoretry_for=(ConfigError,))
    def fail() -> None:
        raise Frozen(5)

    def refuse(state: Any) -> bool:
        raise Frozen(6)

    @app.task(retry=refuse)
    def policy() -> None:
        raise ValueError("why")

    for task in (fail, policy):
        result = task.apply()
        assert result.result is not None
        assert result.result.type.endswith(".Frozen")
