"""clear: what waits in a queue goes for good, in steps; and peek and oldest, which look at what waits."""

from __future__ import annotations

import pytest

from taskq.broker.commands import awaiting, looking, steering
from taskq.broker.protocol import drive
from taskq.steering.purging import purge_queue
from tests.contract.fleet import Fleet, more
from tests.contract.world import LEASE, MINUTE, T0, World, raw_id

A, B, C, D, E, F, G, H = map(raw_id, range(1, 9))


@pytest.fixture
def fleet(world: World) -> Fleet:
    return Fleet(world)


def purge(fleet: Fleet, queue: str = "q") -> int:
    gone = drive(purge_queue(fleet.world.keys, queue), fleet.world.connection)
    fleet.sound()
    return gone


def counters(fleet: Fleet) -> dict[bytes, bytes]:
    return fleet.world.state()["counters"]  # type: ignore[no-any-return]


def test_what_waits_in_whatever_place_goes_and_the_ledger_balances(fleet: Fleet) -> None:
    fleet.publish("t", "k 0 1 1")
    fleet.send(A, B)
    fleet.send(C, head=more(priority=3))
    fleet.send(D, E, F, head=more(_1="key"), task="t")
    held = fleet.take(10)  # the first of the key; the others wait in its line
    fleet.send(G, options=b"d60000")
    fleet.send(H)

    waiting = {A, B, C, D, E, F, H} - {*held}
    assert purge(fleet) == len(waiting)

    left = fleet.world.state()
    assert set(left["messages"]) == {*held, G}
    assert not {"queue:q", "ranked:q", "suspects:q"} & set(left)
    assert not [name for name in left if name.startswith("gated:")]
    assert counters(fleet)[b"q|purged"] == b"%d" % len(waiting)
    assert fleet.world.balances() == {"q": 0}
    assert purge(fleet) == 0


def test_what_was_held_meanwhile_ends_as_ever_and_its_slot_is_free_again(fleet: Fleet) -> None:
    fleet.publish("t", "s 0 1 1")
    fleet.send(A, B, head=more(limited=True))
    assert fleet.take(2) == [A]

    assert purge(fleet) == 1

    fleet.done(A)
    fleet.send(C, head=more(limited=True))
    assert fleet.take(1) == [C]


def test_suspects_go_too(fleet: Fleet) -> None:
    fleet.send(A, B)
    fleet.take(2)
    fleet.lose("inc", A, B)

    assert purge(fleet) == 2
    assert fleet.world.state()["counters"][b"q|purged"] == b"2"


def test_who_waits_for_a_result_is_told_that_it_was_purged(fleet: Fleet) -> None:
    fleet.send(A)
    fleet.world.run(awaiting.await_results(fleet.world.keys, "in", [A]))

    purge(fleet)

    assert fleet.world.state()["inbox:in"] == [b"\x10" + A + b"Xpurged"]
    assert fleet.world.state()[f"result:{A.decode()}"] == b"Xpurged"


def test_the_lock_of_unique_work_is_free_afterwards(fleet: Fleet) -> None:
    fleet.send(A, head=more(lock="d0:t|x"))
    assert fleet.send(B, head=more(lock="d0:t|x")) != b"+"

    purge(fleet)

    assert "unique" not in fleet.world.state()
    assert fleet.send(C, head=more(lock="d0:t|x")) == b"+"


def test_each_call_takes_so_many_at_most(fleet: Fleet) -> None:
    ids = [raw_id(n) for n in range(100, 107)]
    fleet.send(*ids)

    answers = [fleet.world.run(steering.clear(fleet.world.keys, "q", "", 3)) for _ in range(4)]

    assert answers == [3, 3, 1, 0]


def test_what_is_sent_while_a_queue_is_purged_is_not_its_business(fleet: Fleet) -> None:
    """Else a busy producer would keep it going for ever."""
    ids = [raw_id(n) for n in range(1000, 1000 + 1130)]  # no whole number of steps
    fleet.send_all([_plain(id_) for id_ in ids])

    class Sending:
        """A connection beside which a producer sends two messages for each that goes."""

        sent = 0

        def execute(self, command: object) -> object:
            answer = fleet.world.connection.execute(command)  # type: ignore[arg-type]
            more_ids = [raw_id(10_000 + self.sent + n) for n in range(600)]
            self.sent += 600
            fleet.send_all([_plain(id_) for id_ in more_ids])
            return answer

    line = Sending()
    assert drive(purge_queue(fleet.world.keys, "q"), line) == 1130  # type: ignore[arg-type]
    assert fleet.world.raw("LLEN", fleet.world.keys["queue:q"]) == line.sent
    fleet.sound()


def _plain(id_: bytes) -> tuple[bytes, ...]:
    from tests.contract.fleet import sent

    return sent(id_)


# -- looking at what waits ------------------------------------------------------------------------------------


def test_a_page_is_in_the_order_in_which_messages_would_be_taken(fleet: Fleet) -> None:
    fleet.send(A, B)
    fleet.send(C, head=more(priority=3))
    fleet.send(D, head=more(priority=-3))
    fleet.send(E, head=more(priority=5))

    total, found = fleet.world.run(looking.peek(fleet.world.keys, "q", 0, 100))

    assert (total, [one.id for one in found]) == (5, fleet.take(10, most=128))
    assert [one.place for one in found] == ["ranked", "ranked", "queue", "queue", "ranked"]


def test_pages_follow_one_another_across_places(fleet: Fleet) -> None:
    fleet.send(A, B)
    fleet.take(2)
    fleet.lose("inc", A, B)
    fleet.send(C, head=more(priority=3))
    fleet.send(D, E)
    fleet.send(F, head=more(priority=-3))
    whole = fleet.world.run(looking.peek(fleet.world.keys, "q", 0, 100))[1]
    assert {one.id for one in whole[:2]} == {A, B}
    assert [one.id for one in whole[2:]] == [C, D, E, F]

    for size in (1, 2, 3, 5):
        pages = [fleet.world.run(looking.peek(fleet.world.keys, "q", at, size)) for at in range(0, 8, size)]
        assert [one for _, page in pages for one in page] == whole
        assert {total for total, _ in pages} == {6}


def test_a_page_has_the_beginning_of_each_message_only(fleet: Fleet) -> None:
    fleet.world.seed({"messages": {A: b"x" * 100_000}, "queue:q": [A, B]})

    total, found = fleet.world.run(looking.peek(fleet.world.keys, "q", 0, 10))

    assert (total, [(one.id, len(one.head)) for one in found]) == (2, [(A, 512), (B, 0)])


def test_the_age_of_a_queue_is_that_of_its_next_message(fleet: Fleet) -> None:
    fleet.send(A)
    fleet.world.at(T0 + 5000)
    fleet.send(B, head=more(priority=9))
    fleet.world.at(T0 + 7000)

    ages = fleet.world.run(looking.ages(fleet.world.keys, ["q", "nothing"]))
    assert ages == {"q": pytest.approx(7.0, abs=1)}

    fleet.take(1, most=1)
    fleet.take(1, most=1)
    assert fleet.world.run(looking.ages(fleet.world.keys, ["q"])) == {}
    assert LEASE < MINUTE
