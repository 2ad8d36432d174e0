"""Arguments and results as bytes, and back."""

from __future__ import annotations

import dataclasses
import enum
import math
import string
import threading
from collections import OrderedDict, defaultdict, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from taskq.errors import DecodeError, SerializationError
from taskq.message.codec import pack, pack_call, unpack, unpack_call

ZONES = st.sampled_from([ZoneInfo(k) for k in ("Europe/Berlin", "America/New_York", "Asia/Kathmandu", "UTC")])
OFFSETS = st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)))
SENSIBLE = {"min_value": datetime(1900, 1, 2), "max_value": datetime(9999, 12, 30)}

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | OFFSETS)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.builds(Path, st.text(string.ascii_letters + "/. ", min_size=1))
)
HASHABLES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3), max_leaves=5
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(HASHABLES, inner, max_size=4),
        st.sets(HASHABLES, max_size=4),
        st.frozensets(HASHABLES, max_size=4),
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a == b and list(map(type, a)) == list(map(type, b)) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@given(VALUES)
def test_every_value_comes_back_as_it_was_and_of_its_type(value: object) -> None:
    assert same(unpack(pack(value)), value)


@given(st.lists(VALUES, max_size=3), st.dictionaries(st.text(max_size=5), VALUES, max_size=3))
def test_a_call_comes_back_as_its_arguments(args: list[object], kwargs: dict[str, object]) -> None:
    assert same(unpack_call(pack_call(tuple(args), kwargs)), (args, kwargs))


@given(st.datetimes(timezones=ZONES, **SENSIBLE))
def test_a_moment_of_a_zone_comes_back_as_the_same_moment_in_that_zone(moment: datetime) -> None:
    back = unpack(pack(moment))

    assert back.tzinfo is moment.tzinfo
    assert back.astimezone(timezone.utc) == moment.astimezone(timezone.utc)


@pytest.mark.parametrize("fold", [0, 1])
def test_the_hour_that_comes_twice_comes_back_as_the_right_one(fold: int) -> None:
    moment = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)

    back = unpack(pack(moment))

    assert (back, back.fold, back.utcoffset()) == (moment, fold, timedelta(hours=2 - fold))


@pytest.mark.parametrize("moment", [datetime.min, datetime.max, datetime.min.replace(tzinfo=timezone.utc)])
def test_the_ends_of_time_come_back(moment: datetime) -> None:
    assert same(unpack(pack(moment)), moment)


@pytest.mark.parametrize("microseconds", [1, -1, 999_999, 1_000_001])
@pytest.mark.parametrize("cls", [datetime, time])
def test_an_offset_below_a_second_is_not_lost(cls: Any, microseconds: int) -> None:
    offset = timedelta(microseconds=microseconds)
    moment = cls.fromisoformat("2024-01-02T03:04:05" if cls is datetime else "03:04:05").replace(
        tzinfo=timezone(offset)
    )

    assert unpack(pack(moment)).utcoffset() == offset


@pytest.mark.parametrize("number", [math.inf, -math.inf, -0.0, 5e-324, 1.0, 2.0**53 + 2])
def test_a_float_stays_that_float(number: float) -> None:
    back = unpack(pack(number))

    assert (type(back), math.copysign(1, back), back) == (float, math.copysign(1, number), number)


def test_not_a_number_comes_back_as_such() -> None:
    assert math.isnan(unpack(pack(math.nan)))
    assert unpack(pack(Decimal("NaN"))).is_nan()
    assert unpack(pack(Decimal("1.50"))).as_tuple() == Decimal("1.50").as_tuple()


@pytest.mark.parametrize("n", [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**300, -(10**300)])
def test_an_integer_of_any_size_comes_back(n: int) -> None:
    assert same(unpack(pack([n])), [n])


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None
    cache: Any = dataclasses.field(default=None, init=False)


class Model(BaseModel):
    name: str
    when: datetime | None = None


class Text(str):
    pass


class Number(int):
    pass


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, "red"),
        (Colour.PAIR, (1, 2)),
        (Level.HIGH, 3),
        (Point(1, Point(2)), {"x": 1, "y": {"x": 2, "y": None}}),
        (Model(name="n", when=datetime(2024, 1, 2)), {"name": "n", "when": datetime(2024, 1, 2)}),
        (Text("t"), "t"),
        (Number(5), 5),
        (Number(2**70), 2**70),
        (Pair(1, 2), (1, 2)),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (bytearray(b"b"), b"b"),
        (memoryview(b"b"), b"b"),
    ],
)
def test_what_a_message_must_not_name_travels_as_its_plain_value(value: object, plain: object) -> None:
    assert same(unpack(pack(value)), plain)


# -- what cannot be written -----------------------------------------------------------------------------------------


class Session:
    """Nothing that can be sent."""


class User:
    """An object of no known kind."""


@dataclasses.dataclass
class Account:
    name: str
    session: object


class Holder(BaseModel, arbitrary_types_allowed=True):
    session: Session


def refusal(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(SerializationError) as caught:
        pack_call(args, kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        ((1, {"user": Account("n", Session())}), {}, "args[1]['user'].session"),
        ((Session(),), {}, "args[0]"),
        ((), {"s": Session()}, "kwargs['s']"),
        ((), {"s": [1, (2, [Session()])]}, "kwargs['s'][1][1][0]"),
        (([{"a": {"b": [Session()]}}],), {}, "args[0][0]['a']['b'][0]"),
        ((Holder(session=Session()),), {}, "args[0].session"),
        (({(1, 2): Session()},), {}, "args[0][(1, 2)]"),
    ],
)
def test_the_error_names_the_path_to_the_culprit(args: Any, kwargs: Any, path: str) -> None:
    assert refusal(*args, **kwargs) == f"{path}: cannot serialise {__name__}.Session"


def test_a_key_that_cannot_be_written_is_named_as_such() -> None:
    session = Session()

    assert refusal({session: 1}) == f"key {session!r:.40} of args[0]: cannot serialise {__name__}.Session"


def test_a_member_of_a_set_is_named() -> None:
    assert refusal({Session}).endswith(": cannot serialise type")
    assert refusal({Session}).startswith("args[0]{")


@pytest.mark.parametrize("value", [lambda: 1, open, object(), 1j, iter([]), Session, Exception("x"), ...])
def test_what_has_no_plain_value_is_refused_at_the_call(value: object) -> None:
    assert refusal([value]).startswith("args[0][0]: cannot serialise ")


@dataclasses.dataclass
class Partial:
    bad: object
    later: object = dataclasses.field(init=False)


class Shy:
    def __repr__(self) -> str:
        raise RuntimeError("not for you")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Partial, "args[0]: cannot serialise type"),
        ([Model], "args[0][0]: cannot serialise pydantic._internal._model_construction.ModelMetaclass"),
        (Partial(Shy()), f"args[0].bad: cannot serialise {__name__}.Shy"),
        ({Shy}, "args[0]{"),
    ],
)
def test_the_search_for_the_culprit_never_fails_itself(value: object, text: str) -> None:
    assert refusal(value).startswith(text)
    assert "Shy" in refusal({Shy(): 1})
    assert "Shy" in refusal({Shy()})


def test_the_error_of_a_result_says_value() -> None:
    with pytest.raises(SerializationError, match=r"^value\[0\]: cannot serialise "):
        pack([Session()])


def test_a_value_that_contains_itself_is_refused_with_the_reason() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    circle: dict[str, Any] = {}
    circle["self"] = [circle]
    point = Point(1)
    point.y = point

    for value in (cycle, circle, (point,), (cycle,), [1, {2: cycle}]):
        text = refusal(1, value)
        assert text.startswith("args[1]")
        assert "contains itself" in text


def nested(depth: int, kind: type = list) -> Any:
    value: Any = kind()
    for _ in range(depth):
        value = kind([value])
    return value


@pytest.mark.parametrize("kind", [list, tuple])
def test_what_is_nested_too_deep_is_refused_and_not_a_crash(kind: type) -> None:
    assert "nested too deep" in refusal(nested(10_000, kind))


@pytest.mark.parametrize(("kind", "depth"), [(list, 300), (tuple, 49), (frozenset, 49)])
def test_a_sensible_depth_comes_back(kind: type, depth: int) -> None:
    assert same(unpack(pack(nested(depth, kind))), nested(depth, kind))


def test_the_deepest_that_is_read_is_the_deepest_that_is_written() -> None:
    deepest = nested(997)  # the call itself and the list of its arguments are two levels more, the innermost list one

    data = pack_call((deepest,), {})
    assert pack_call(*unpack_call(data)) == data
    assert "nested deeper than 1000 levels" in refusal([deepest])
    assert refusal(1, nested(1010)) == "args[1]: cannot serialise list: nested too deep, or contains itself"
    with pytest.raises(DecodeError, match="nested deeper than 1000 levels"):
        unpack(b"\x91" * 1000 + b"\x90")
    with pytest.raises(DecodeError, match="nested deeper than 1000 levels"):
        unpack(b"\x93\xa3abc\xd9\x80" + b"x" * 128 + b"\x81\xa1k" * 1000 + b"\xc0")


def test_a_list_of_too_many_entries_is_neither_written_nor_read() -> None:
    most = [0] * 1_000_000

    assert unpack(pack(most)) == most
    assert refusal([0] * 1_000_001) == "args[0]: cannot serialise list: more than 1,000,000 entries"
    with pytest.raises(DecodeError, match="exceeds max_array_len"):
        unpack(msgpack.packb([0] * 1_000_001))


def test_an_extension_of_nobody_is_refused_and_msgpacks_own_moment_read() -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, 678, tzinfo=timezone.utc)

    with pytest.raises(DecodeError, match="extension type 42"):
        unpack(msgpack.packb([msgpack.ExtType(42, b"x")]))
    assert same(unpack(msgpack.packb(msgpack.Timestamp.from_datetime(moment))), moment)
    with pytest.raises(DecodeError):
        unpack(msgpack.packb(msgpack.Timestamp(2**62, 0)))


@pytest.mark.parametrize("leaf", [UUID(int=1), date(2024, 1, 2), 2**70, Decimal(1), (), 5])
@pytest.mark.parametrize("depth", range(45, 55))
def test_what_is_accepted_at_the_call_can_be_read(leaf: object, depth: int) -> None:
    """Reading a few hundred tuples within one another would take all of the C stack."""
    value = leaf
    for _ in range(depth):
        value = (value,)

    if depth > 50:
        assert "nested too deep" in refusal(value)
        return
    try:
        data = pack(value)
    except SerializationError:
        assert depth == 50  # where the leaf is one level more
        return
    assert same(unpack(data), value)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_is_refused_with_its_path(text: str) -> None:
    assert refusal({"k": [text]}).startswith("args[0]['k'][0]: cannot serialise str: ")
    assert refusal({text: 1}).startswith("key ")
    refusal(**{text: 1}).encode()  # an error text that can be written itself


def test_a_thread_goes_on_as_before_after_an_error() -> None:
    """One packer serves a whole thread: what it had written of a failed value must not come with the next."""
    for bad in ([1, 2, Session()], {"a": "\ud800"}, nested(1500), [2**64, Session()]):
        with pytest.raises(SerializationError):
            pack(bad)
        assert pack([1, "two"]) == msgpack.packb([1, "two"])
        assert unpack(pack({"t": (1,)})) == {"t": (1,)}


def test_a_thread_reads_on_as_before_after_what_cannot_be_read() -> None:
    """The check of large data before it is read has a state of its own."""
    good = pack(["x" * 2000])
    for bad in (
        good + b"\x91" * 100,
        good[:-1],
        good[:-1] + b"\xc1\xc1",
        b"\x91" * 1001,
        b"\xc1" * 2000,
        b"\xdd" * 2000,
    ):
        with pytest.raises(DecodeError):
            unpack(bad)
        assert unpack(good) == ["x" * 2000]
        assert unpack(pack(nested(990))) is not None


def test_threads_do_not_disturb_one_another() -> None:
    values = [[i] * 50 + [(i, str(i) * 100)] for i in range(8)]
    wrong: list[object] = []

    def work(value: object) -> None:
        wrong.extend(value for _ in range(300) if unpack(pack(value)) != value)

    threads = [threading.Thread(target=work, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


# -- hostile bytes --------------------------------------------------------------------------------------------------

SAMPLE = pack([1, "text", (1, {2}), datetime(2024, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")), {"k": [Decimal("1.5")]}])
EXT_BOMB = b""
for _ in range(3000):
    EXT_BOMB = msgpack.packb(msgpack.ExtType(9, b"\x91" + (EXT_BOMB or b"\xc0")))


@pytest.mark.parametrize("end", range(len(SAMPLE)))
def test_bytes_cut_anywhere_are_an_error_of_ours(end: int) -> None:
    with pytest.raises(DecodeError):
        unpack(SAMPLE[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        SAMPLE + b"\xc0",
        b"\xdb\x7f\xff\xff\xff",  # a string, a map, an array, a binary and an extension of 2 GB
        b"\xdf\x7f\xff\xff\xff",
        b"\xdd\x7f\xff\xff\xff",
        b"\xc6\x7f\xff\xff\xff",
        b"\xc9\x7f\xff\xff\xff\x01",
        b"\xdd\xff\xff\xff\xff" + b"\xc0" * 100,
        b"\x91" * 10_000 + b"\xc0",
        b"\x81\xc0" * 10_000 + b"\xc0",
        EXT_BOMB,
        b"\xd4\x63\x00",  # an extension nobody knows
        b"\xa1\xff",  # a string that is not UTF-8
        b"\x81\x90\xc0",  # a map whose key is a list
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(["no date", None]))),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(["2024-01-02T03:04:05", "../../etc/passwd"]))),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(["2024-01-02T03:04:05", "No/Where"]))),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(7))),
        msgpack.packb(msgpack.ExtType(4, msgpack.packb([10**12, 0, 0]))),
        msgpack.packb(msgpack.ExtType(5, b"short")),
        msgpack.packb(msgpack.ExtType(6, msgpack.packb("not a number"))),
        msgpack.packb(msgpack.ExtType(7, msgpack.packb([[1]]))),
        msgpack.packb(msgpack.ExtType(9, msgpack.packb(1))),
        msgpack.packb(msgpack.ExtType(10, msgpack.packb("0xno"))),
        msgpack.packb(msgpack.ExtType(11, msgpack.packb(1))),
    ],
    ids=lambda data: data[:8].hex(),
)
def test_hostile_bytes_are_an_error_of_ours_with_a_short_text(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        unpack(data)

    assert len(str(caught.value)) <= 400


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_an_error_of_ours(data: bytes) -> None:
    try:
        unpack(data)
    except DecodeError:
        pass


@pytest.mark.parametrize("body", [[], [[]], [[], {}, 1], [{}, []], [(), {}], None, {"args": []}, 7])
def test_a_body_that_is_no_call_is_refused(body: object) -> None:
    with pytest.raises(DecodeError, match="pair of arguments"):
        unpack_call(pack(body))


def test_a_uuid_and_a_date_are_no_strings_on_the_other_side() -> None:
    value = [UUID(int=5), date(2024, 2, 29), time(23, 59, 59, 999_999), timedelta(-1, 5, 7)]

    assert same(unpack(pack(value)), value)
