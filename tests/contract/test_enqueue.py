"""enqueue: each message into its queue or the schedule, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from taskq.broker.commands.producing import enqueue
from taskq.broker.queue_set import QueueSet
from taskq.errors import BrokerRefused
from taskq.message.envelope import decode, encode_envelope
from taskq.message.head import encode_head
from tests.contract.world import LEASE, MINUTE, T0, Near, Scores, State, World, message, messages, raw_id, serving

A, B, C, D = map(raw_id, range(1, 5))


def sent(id_: bytes, options: bytes = b"", queue: str = "q", task: str = "t") -> tuple[bytes, bytes, bytes]:
    """A message as a producer sends it."""
    return id_, encode_head(task, queue) + encode_envelope(id_, {}, b"body"), options


def accept(world: World, *sent_messages: tuple[bytes, bytes, bytes], number: int = 1) -> bytes:
    return world.run(enqueue(world.keys, b"p", number, sent_messages))


def stored(state: State) -> dict[bytes, tuple[Any, ...]]:
    """What the messages hash says, read as a worker reads it."""
    read = {id_: decode(value) for id_, value in state["messages"].items()}
    return {id_: (e.id, e.task, e.queue, e.accepted, e.expires, e.body) for id_, e in read.items()}


def plain(id_: bytes, queue: str = "q", task: str = "t", expires: float | None = None) -> tuple[Any, ...]:
    return id_, task, queue, Near(T0), expires, b"body"


def test_one_message_goes_to_the_end_of_its_queue_and_wakes_those_who_serve_it(world: World) -> None:
    before = world.seed(serving("inc"))

    answer = accept(world, sent(A))

    assert answer == b"+"
    after = world.state()
    assert stored(after) == {A: plain(A)}
    assert after == before | {
        "messages": after["messages"],
        "queue:q": [A],
        "ready:set": Scores({b"q": Near(T0)}),
        "bell:set": [b"1"],
        "counters": {b"q|accepted": b"1"},
        "producer:p": b"1 + " + A,
    }


def test_the_last_call_of_a_producer_is_remembered_for_an_hour(world: World) -> None:
    accept(world, sent(A))

    assert 3_599_000 < world.ttl("producer:p") <= 3_600_000


def test_a_queue_that_has_something_already_rings_nothing(world: World) -> None:
    before = world.seed(serving("inc"), {"queue:q": [A], "messages": messages(A)})

    accept(world, sent(B))

    after = world.state()
    assert after == before | {
        "messages": before["messages"] | {B: after["messages"][B]},
        "queue:q": [A, B],
        "counters": {b"q|accepted": b"1"},
        "producer:p": b"1 + " + B,
    }


def test_a_bell_that_rings_already_gets_no_second_token(world: World) -> None:
    before = world.seed(serving("inc"), {"bell:set": [b"1"], "ready:set": Scores({b"other": 5.0})})

    accept(world, sent(A))

    after = world.state()
    assert after["bell:set"] == before["bell:set"]
    assert after["ready:set"] == Scores({b"other": 5.0, b"q": Near(T0)})


def test_every_set_that_serves_the_queue_is_told(world: World) -> None:
    world.seed({"serving": {b"q": b"one two"}})

    accept(world, sent(A))

    after = world.state()
    assert after["ready:one"] == after["ready:two"] == Scores({b"q": Near(T0)})
    assert after["bell:one"] == after["bell:two"] == [b"1"]


def test_many_messages_of_several_queues_keep_their_order(world: World) -> None:
    before = world.seed({"serving": {b"q": b"set"}})
    many = [sent(raw_id(i), queue="q" if i % 3 else "other") for i in range(2500)]

    answer = accept(world, *many)

    assert answer == b"+" * 2500
    after = world.state()
    assert stored(after) == {raw_id(i): plain(raw_id(i), "q" if i % 3 else "other") for i in range(2500)}
    assert after == before | {
        "messages": after["messages"],
        "queue:q": [raw_id(i) for i in range(2500) if i % 3],
        "queue:other": [raw_id(i) for i in range(2500) if not i % 3],
        "ready:set": Scores({b"q": Near(T0)}),
        "bell:set": [b"1"],
        "counters": {b"q|accepted": b"1666", b"other|accepted": b"834"},
        "producer:p": b"1 " + b"+" * 2500 + b" " + raw_id(0),
    }


@pytest.mark.parametrize("options", [b"d60000", b"a%d" % (T0 + MINUTE)])
def test_a_message_for_later_waits_in_the_schedule(world: World, options: bytes) -> None:
    before = world.seed(serving("inc"))

    answer = accept(world, sent(A, options))

    assert answer == b"+"
    after = world.state()
    assert stored(after) == {A: plain(A)}
    assert after == before | {
        "messages": after["messages"],
        "schedule": Scores({A: Near(T0 + MINUTE)}),
        "alarm": [b"1"],
        "counters": {b"q|accepted": b"1", b"q|scheduled": b"1"},
        "producer:p": b"1 + " + A,
    }


def test_the_keeper_of_the_time_is_woken_only_for_an_earlier_message(world: World) -> None:
    world.seed({"schedule": Scores({D: T0 + MINUTE}), "messages": messages(D)})

    accept(world, sent(A, b"d120000"))
    later = world.state()
    accept(world, sent(B, b"d30000"), number=2)

    assert "alarm" not in later
    assert world.state()["alarm"] == [b"1"]


@pytest.mark.parametrize("options", [b"d0", b"a%d" % (T0 - MINUTE)])
def test_a_time_that_has_passed_means_now(world: World, options: bytes) -> None:
    accept(world, sent(A, options))

    after = world.state()
    assert after["queue:q"] == [A]
    assert "schedule" not in after


@pytest.mark.parametrize("options", [b"x60000", b"e%d" % (T0 + MINUTE), b"cx60000", b"d1000e%d" % (T0 + MINUTE)])
def test_an_expiry_is_stamped_into_the_head(world: World, options: bytes) -> None:
    accept(world, sent(A, options))

    assert stored(world.state()) == {A: plain(A, expires=Near(T0 + MINUTE))}


@pytest.mark.parametrize("place", ["a message", "a result", "a dead letter"])
def test_an_id_of_the_callers_is_refused_while_it_is_in_use(world: World, place: str) -> None:
    dead = {"messages": messages(A), "dead:q": Scores({A: T0}), "reasons": {A: b"failed\n"}}
    states: dict[str, State] = {"a message": {"messages": messages(A)}, "a result": {"result:" + A.decode(): b"S\xc0"}}
    before = world.seed(states.get(place, dead))

    answer = accept(world, sent(A))

    assert answer == b"="
    assert world.state() == before | {"producer:p": b"1 = " + A}


def test_an_id_given_twice_in_one_call_is_accepted_once(world: World) -> None:
    answer = accept(world, sent(A), sent(B), sent(A), sent(C))

    assert answer == b"++=+"
    after = world.state()
    assert set(after["messages"]) == {A, B, C}
    assert after["queue:q"] == [A, B, C]
    assert after["counters"] == {b"q|accepted": b"3"}


def test_a_queue_that_nobody_serves_is_said_so_where_asked(world: World) -> None:
    world.seed(serving("inc", queues=QueueSet("set", ("served",))))

    answer = accept(
        world, sent(A, b"cw"), sent(B), sent(C, b"w"), sent(D, b"w", queue="served"), sent(A, b"cw")
    )  # the last is a duplicate, which is the more important answer

    assert answer == b"-+-+="
    assert world.state()["queue:q"] == [A, B, C]


def test_the_same_number_again_is_answered_alike_and_changes_nothing(world: World) -> None:
    world.seed(serving("inc"), {"messages": messages(C), "queue:q": [C]})
    first = accept(world, sent(A), sent(C), sent(B, b"w", queue="none"), number=7)
    before = world.dump()

    again = accept(world, sent(A), sent(C), sent(B, b"w", queue="none"), number=7)

    assert first == again == b"+=-"
    assert world.dump() == before


def test_a_repeat_is_recognised_after_the_message_has_long_ended(world: World) -> None:
    accept(world, sent(A), number=7)
    for name in ("messages", "queue:q"):
        world.raw("DEL", world.keys[name])
    before = world.dump()

    again = accept(world, sent(A), number=7)

    assert again == b"+"
    assert world.dump() == before


@pytest.mark.parametrize(("number", "id_"), [(6, A), (6, B), (7, B)])
def test_a_number_that_went_back_or_belongs_to_another_message_is_refused(
    world: World, number: int, id_: bytes
) -> None:
    accept(world, sent(A), number=7)
    before = world.dump()

    with pytest.raises(BrokerRefused, match="went back"):
        accept(world, sent(id_), number=number)

    assert world.dump() == before


@pytest.mark.parametrize("first", [False, True], ids=["a first call", "a later call"])
@pytest.mark.parametrize("key", ["messages", "queue:q", "counters"])
def test_a_call_that_could_not_be_executed_is_executed_when_it_is_repeated(world: World, key: str, first: bool) -> None:
    """Its answer may be lost as well: then the producer says it again, and must not be told that it was accepted."""
    if not first:
        accept(world, sent(B, queue="other"), number=6)
    kept = world.take_away(key)
    world.raw("SET", world.keys[key], "of another type")
    before = world.dump()

    with pytest.raises(BrokerRefused, match="WRONGTYPE"):
        accept(world, sent(A), number=7)

    assert world.dump() == before
    world.bring_back(key, kept)
    assert accept(world, sent(A), number=7) == b"+"
    assert world.state()["queue:q"] == [A]
    assert world.balances()["q"] == 0


def test_a_higher_number_is_a_new_call_even_of_the_same_id(world: World) -> None:
    accept(world, sent(A), number=7)

    assert accept(world, sent(A), number=9) == b"="
    assert world.state()["producer:p"] == b"9 = " + A


def test_the_answer_of_a_large_call_survives_with_an_id_of_200_bytes(world: World) -> None:
    long_id = b"x" * 200
    calls = [sent(long_id), *(sent(raw_id(i)) for i in range(499))]

    first, again = accept(world, *calls), accept(world, *calls)

    assert first == again == b"+" * 500
    assert world.state()["counters"] == {b"q|accepted": b"500"}


def test_names_of_200_bytes_are_read_rightly(world: World) -> None:
    queue, task = "q" * 200, "t" * 200

    accept(world, sent(A, b"x60000", queue=queue, task=task))

    after = world.state()
    assert after["queue:" + queue] == [A]
    assert stored(after) == {A: plain(A, queue, task, expires=Near(T0 + MINUTE))}


def test_the_stored_form_is_the_one_the_other_tests_seed(world: World) -> None:
    accept(world, (A, encode_head("t", "q") + encode_envelope(A, {}, b""), b""))

    value = world.state()["messages"][A]
    accepted = decode(value).accepted
    assert value == message(A, accepted=accepted)
    assert accepted == Near(T0)
    assert LEASE < MINUTE


def unique(id_: bytes, lock: bytes) -> tuple[bytes, bytes, bytes]:
    """A message that is unique until it is done."""
    content = b"d0:" + lock
    return id_, encode_head("t", "q", more=b"u%c%s" % (len(content), content)) + encode_envelope(id_, {}, b"body"), b""


def test_a_lock_holds_as_long_as_its_message_lives(world: World) -> None:
    assert accept(world, unique(A, b"lock"), number=1) == b"+"
    assert accept(world, unique(B, b"lock"), number=2) == b"~" + A.hex().encode() + b"."
    world.raw("HDEL", world.keys["messages"], A)

    assert accept(world, unique(C, b"lock"), number=3) == b"+"
    assert world.state()["unique"] == {b"lock": b"0 " + C}
