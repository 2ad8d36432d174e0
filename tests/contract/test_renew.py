"""renew, and the rule of the pulse that it shares with reap."""

from __future__ import annotations

import pytest

from taskq.broker.commands.announcing import publish_tasks
from taskq.broker.commands.holding import register
from taskq.broker.commands.keeping import reap
from taskq.broker.commands.leasing import Renewal, renew
from taskq.broker.queue_set import QueueSet
from tests.contract.world import LEASE, MINUTE, SET, T0, Near, Scores, State, World, messages, raw_id, serving

A, B = raw_id(1), raw_id(2)
FRESH = Near(T0 + LEASE)
FRESH_LEASES: State = {"leases": Scores({b"inc": FRESH}), "set-leases": Scores({b"set": FRESH}), "pulse": Near(T0)}


def pulse(ago: float = 1000) -> State:
    """Somebody renewed that many ms ago."""
    return {"pulse": b"%d" % (T0 - ago)}


def test_the_leases_of_a_worker_and_its_set_are_renewed(world: World) -> None:
    before = world.seed(serving("one", "two", "other", until=T0 + 9000.0), pulse())

    renewal = world.run(renew(world.keys, LEASE, [SET], ["one", "two"]))

    assert renewal.next_end == pytest.approx(9, abs=1)
    assert (renewal.suspects, renewal.lost) == (False, set())
    assert world.state() == before | {
        "leases": Scores({b"one": FRESH, b"two": FRESH, b"other": T0 + 9000.0}),
        "set-leases": Scores({b"set": FRESH}),
        "pulse": Near(T0),
    }


def test_again_it_renews_again(world: World) -> None:
    world.seed(serving("inc"))
    world.run(renew(world.keys, LEASE, [SET], ["inc"]))
    world.at(T0 + 5000)

    world.run(renew(world.keys, LEASE, [SET], ["inc"]))

    assert world.state() == serving("inc", until=Near(T0 + 5000 + LEASE)) | {"pulse": Near(T0 + 5000)}


def test_an_incarnation_that_is_not_registered_is_named_and_not_made(world: World) -> None:
    before = world.seed(serving("inc"), pulse())

    renewal = world.run(renew(world.keys, LEASE, [], ["gone", "inc"]))

    assert renewal.lost == {"gone"}
    assert world.state() == before | {"leases": Scores({b"inc": FRESH}), "pulse": Near(T0)}


def test_what_is_missing_of_a_set_is_put_back_and_it_is_told_of_what_waits(world: World) -> None:
    """A worker that lives on must not be deaf, whatever the server has lost of what it serves."""
    state = serving("inc") | {"messages": messages(A), "queue:q": [A], "gates": {b"t#1": b" q "}, "gated:q|t#1": [B]}
    for missing in ("sets", "serving", "set-leases"):
        world.seed(state, pulse())
        world.raw("DEL", world.keys[missing])

        renewal = world.run(renew(world.keys, LEASE, [SET], ["inc"]))

        after = world.state()
        assert {name: after[name] for name in ("sets", "serving")} == {n: state[n] for n in ("sets", "serving")}
        assert after["set-leases"] == Scores({b"set": FRESH})
        if missing != "set-leases":
            assert renewal.healed == ["set set"]
            assert set(after["ready:set"]) == {b"q", b"q|t#1"}
            assert after["bell:set"] == [b"1"]
        for name in world.names():
            world.raw("DEL", world.keys[name])


@pytest.mark.parametrize("lost", [("leases", "terms"), ("calls",)])
def test_what_was_lost_of_an_incarnation_that_is_registered_is_put_back(world: World, lost: tuple[str, ...]) -> None:
    """Else what it runs, for hours perhaps, would run again, and its outcome be refused."""
    before = world.seed(serving("inc"), pulse())
    world.raw("DEL", *(world.keys[name] for name in lost))

    renewal = world.run(renew(world.keys, LEASE, [SET], ["inc"]))

    assert (renewal.lost, renewal.healed) == (set(), ["incarnation inc"])
    fresh = {"leases": Scores({b"inc": FRESH}), "set-leases": Scores({b"set": FRESH}), "pulse": Near(T0)}
    assert world.state() == before | fresh


def test_what_an_incarnation_is_can_be_said_again_but_not_of_one_that_is_lost(world: World) -> None:
    before = world.seed(serving("inc"), pulse())
    world.raw("DEL", world.keys["workers"])

    assert world.run(renew(world.keys, LEASE, [], ["inc", "lost"])).unknown == {"inc"}
    infos = {"inc": b"info", "lost": b"info"}
    assert world.run(renew(world.keys, LEASE, [], ["inc", "lost"], infos=infos)).unknown == set()

    assert world.state()["workers"] == before["workers"]


def test_a_renewal_says_that_the_server_has_lost_or_never_had_the_announcement(world: World) -> None:
    since = world.run(publish_tasks(world.keys, [("t", "q", "")], {"lease": LEASE})).since

    assert not world.run(renew(world.keys, LEASE, [], [], since)).unannounced
    assert world.run(renew(world.keys, LEASE, [], [], since + 1)).unannounced, "an older one is in force"
    world.raw("DEL", world.keys["published"])
    assert world.run(renew(world.keys, LEASE, [], [], since)).unannounced


# -- word of what waits -----------------------------------------------------------------------------------

WAITING: State = {"messages": messages(A), "queue:q": [A]}
READY: State = {"ready:set": Scores({b"q": 5.0})}


def renewed(world: World, queues: QueueSet = SET) -> Renewal:
    renewal = world.run(renew(world.keys, LEASE, [queues], ["inc"]))
    assert not renewal.lost
    return renewal


@pytest.mark.parametrize("key", ["queue:q", "ranked:q"])
def test_a_name_that_is_missing_among_the_ready_is_put_back_and_the_bell_rings(world: World, key: str) -> None:
    waits: State = {key: [A] if key == "queue:q" else Scores({A: 1.0})}
    before = world.seed(serving("inc"), pulse(), {"messages": messages(A)}, waits)

    renewal = renewed(world)

    assert (renewal.healed, renewal.unheard) == ([], False)
    assert world.state() == before | FRESH_LEASES | {"ready:set": Scores({b"q": Near(T0)}), "bell:set": [b"1"]}


def test_a_bell_that_nobody_heard_rings_again_and_the_renewal_says_so(world: World) -> None:
    """The line of a gate may be all that is ready: its queue is empty then."""
    before = world.seed(serving("inc"), pulse(), {"ready:set": Scores({b"q|t#1": 5.0})})

    assert renewed(world).unheard

    assert world.state() == before | FRESH_LEASES | {"bell:set": [b"1"]}


def test_where_all_has_been_told_a_renewal_tells_nothing(world: World) -> None:
    before = world.seed(serving("inc"), pulse(), WAITING, READY, {"bell:set": [b"1"]})

    assert not renewed(world).unheard

    assert world.state() == before | FRESH_LEASES


@pytest.mark.parametrize(("marks", "told"), [({}, True), ({b"q": b"l"}, False), ({b"*": b"l"}, False)])
def test_a_parent_is_told_again_of_suspects_unless_something_may_hold_them_up(
    world: World, marks: dict[bytes, bytes], told: bool
) -> None:
    """It starts a process for them, every time."""
    world.seed(serving("inc"), {"messages": messages(A), "suspects:q": [A], "crashes": {A: b"1"}})
    if marks:
        world.seed({"marks": marks})

    assert renewed(world).suspects == told

    assert world.state().get("solo:set") == (Scores({b"q": Near(T0)}) if told else None)


@pytest.mark.parametrize("family", ["ready", "bell", "solo", "solo-bell", "spent"])
def test_a_key_of_the_wrong_type_that_only_says_what_waits_is_made_anew(world: World, family: str) -> None:
    before = world.seed(serving("inc"), pulse(), WAITING, READY, {"bell:set": [b"1"]})
    name = f"{family}:set"
    world.raw("SET", world.keys[name], "an operator's hand")

    assert renewed(world).healed == [f"key {name} (it was a string)"]

    ready = {"ready:set": Scores({b"q": Near(T0)})} if family == "ready" else {}
    assert world.state() == before | FRESH_LEASES | ready


@pytest.mark.parametrize("name", ["queue:q", "ranked:q", "suspects:q"])
def test_a_queue_of_the_wrong_type_does_not_stop_a_renewal(world: World, name: str) -> None:
    world.seed(serving("inc"), pulse())
    world.raw("SET", world.keys[name], "an operator's hand")

    assert renewed(world).healed == []

    assert world.state()["leases"] == Scores({b"inc": FRESH})
    world.raw("DEL", world.keys[name])


def many(world: World) -> tuple[QueueSet, dict[str, bytes]]:
    """A set of 250 queues with a message in each, of which nobody has been told."""
    queues = QueueSet("set", tuple(f"q{i:03}" for i in range(250)))
    ids = {name: raw_id(i) for i, name in enumerate(queues.queues)}
    world.seed(
        serving("inc", queues=queues),
        {"messages": {i: v for name, id_ in ids.items() for i, v in messages(id_, queue=name).items()}},
        {f"queue:{name}": [id_] for name, id_ in ids.items()},
    )
    return queues, ids


def test_the_queues_of_a_large_set_have_their_turns(world: World) -> None:
    queues, ids = many(world)
    told = []
    for number in range(3):
        world.at(T0 + 4000 * number)
        renewed(world, queues)
        told.append(len(world.state()["ready:set"]))

    assert told == [100, 200, len(ids)]


def test_what_is_missing_of_a_large_set_is_put_back_at_once_as_a_whole(world: World) -> None:
    queues, ids = many(world)
    before = world.state()
    world.raw("DEL", world.keys["serving"])

    assert renewed(world, queues).healed == ["set set"]

    after = world.state()
    assert after["serving"] == before["serving"]
    assert set(after["ready:set"]) == {name.encode() for name in ids}


# -- leases of several lengths ----------------------------------------------------------------------------

SHORT = 3000


def mixed(long_until: float, short_until: float) -> State:
    """A worker with a lease of a minute and one with a short one, serving the same queues."""
    state = serving("long", "short")
    state["leases"] = Scores({b"long": long_until, b"short": short_until})
    return state | {"terms": Scores({b"long": float(MINUTE), b"short": float(SHORT)})}


def test_a_short_lease_does_not_shorten_the_one_of_the_set_they_share(world: World) -> None:
    world.seed(pulse())
    world.run(register(world.keys, "long", MINUTE, b"", SET))
    world.run(register(world.keys, "short", SHORT, b"", SET))
    world.run(renew(world.keys, SHORT, [SET], ["short"]))

    assert world.state()["set-leases"] == Scores({b"set": Near(T0 + MINUTE)})
    world.at(T0 + 2.5 * SHORT)
    world.seed({"settings": {b"lease": b"%d" % SHORT}})
    world.run(reap(world.keys, 10))
    assert "sets" in world.state(), "the other serves it"


def test_two_renewals_within_a_millisecond_are_no_clock_that_went_back(world: World) -> None:
    """The time of the last one is kept in whole milliseconds: it may lie in the future by half of one."""
    before = world.seed(mixed(T0 + 50_000.0, T0 + 2000.0), pulse(ago=-1))

    world.run(renew(world.keys, SHORT, [SET], ["short"]))

    assert world.state()["leases"][b"long"] == before["leases"][b"long"]


@pytest.mark.parametrize("how", ["renew", "reap"])
def test_each_lease_is_clamped_and_made_fresh_to_its_own_length(world: World, how: str) -> None:
    def look() -> None:
        world.run(renew(world.keys, SHORT, [], []) if how == "renew" else reap(world.keys, 10))

    world.seed(mixed(T0 + 600.0 * MINUTE, T0 + 600.0 * MINUTE), pulse(ago=-600 * MINUTE))
    look()
    assert world.state()["leases"] == Scores({b"long": Near(T0 + MINUTE), b"short": Near(T0 + SHORT)})

    world.seed(mixed(T0 - 1.0, T0 - 1.0), pulse(ago=MINUTE))
    look()
    assert world.state()["leases"] == Scores({b"long": Near(T0 + MINUTE), b"short": Near(T0 + SHORT)})


def test_a_silence_too_short_for_a_long_lease_still_is_one_for_a_short_lease(world: World) -> None:
    world.seed(mixed(T0 - 1.0, T0 - 1.0), pulse(ago=2 * SHORT))

    world.run(renew(world.keys, MINUTE, [], []))

    assert world.state()["leases"] == Scores({b"long": T0 - 1.0, b"short": Near(T0 + SHORT)})


def test_whoever_has_a_long_lease_keeps_the_pulse_fresh_for_the_short_ones(world: World) -> None:
    world.seed(mixed(T0 + 50_000.0, T0 + 2900.0), pulse())

    assert world.run(renew(world.keys, MINUTE, [], ["long"])).next_end == pytest.approx(SHORT / 3000, abs=0.1)
    world.seed({"settings": {b"lease": b"%d" % MINUTE}})
    assert world.run(reap(world.keys, 10)).next_end == pytest.approx(SHORT / 3000, abs=0.1)


def test_the_length_of_a_lease_that_went_without_it_is_forgotten(world: World) -> None:
    """As it is when a worker of an older version has reaped."""
    world.seed(serving("inc"), pulse(), {"terms": Scores({b"gone": 1000.0, b"away": 9.0 * MINUTE})})

    assert world.run(renew(world.keys, LEASE, [], ["inc"])).next_end == pytest.approx(LEASE / 1000, abs=1)
    assert world.state()["terms"] == Scores({b"inc": float(LEASE)})


def test_suspects_of_the_own_sets_are_reported(world: World) -> None:
    world.seed(serving("inc"), {"solo:set": Scores({b"q": 1.0})})

    assert world.run(renew(world.keys, LEASE, [SET], ["inc"])).suspects
    assert not world.run(renew(world.keys, LEASE, [QueueSet("other", ("p",))], ["inc"])).suspects


def test_a_lease_that_ended_while_others_renewed_is_not_given_a_fresh_one(world: World) -> None:
    world.seed(serving("late", until=T0 - 1000.0), pulse(ago=LEASE / 2 - 1000))

    world.run(renew(world.keys, LEASE, [], []))

    assert world.state()["leases"] == Scores({b"late": T0 - 1000.0})


def test_a_lease_that_ended_but_was_not_reaped_still_belongs_to_its_owner(world: World) -> None:
    world.seed(serving("late", until=T0 - 1000.0), pulse())

    renewal = world.run(renew(world.keys, LEASE, [], ["late"]))

    assert renewal.lost == set()
    assert world.state()["leases"] == Scores({b"late": FRESH})


@pytest.mark.parametrize("how", ["renew", "reap"])
@pytest.mark.parametrize("silence", [LEASE / 2 + 1000, 100 * MINUTE])
def test_after_a_silence_every_lease_that_has_ended_or_is_about_to_gets_a_fresh_one(
    world: World, how: str, silence: float
) -> None:
    """Nobody could renew: the server was away, a snapshot was restored, or the clock jumped."""
    leases = {b"ended": T0 - 90.0 * MINUTE, b"soon": T0 + LEASE / 2 - 1000, b"later": T0 + LEASE / 2 + 2000}
    before = world.seed(serving("ended", "soon", "later"), {"leases": Scores(leases)}, pulse(ago=silence))

    if how == "renew":
        world.run(renew(world.keys, LEASE, [], []))
    else:
        assert world.run(reap(world.keys, 10)).moves == {}

    assert world.state() == before | {
        "leases": Scores({b"ended": FRESH, b"soon": FRESH, b"later": leases[b"later"]}),
        "pulse": Near(T0),
    }


def test_the_first_pulse_of_all_counts_as_a_silence(world: World) -> None:
    world.seed(serving("inc", until=T0 - 1000.0))

    world.run(renew(world.keys, LEASE, [], []))

    assert world.state()["leases"] == Scores({b"inc": FRESH})


@pytest.mark.parametrize("how", ["renew", "reap"])
def test_when_the_clock_went_back_leases_are_clamped(world: World, how: str) -> None:
    leases = {b"far": T0 + 600.0 * MINUTE, b"near": T0 + 2000.0}
    world.seed(serving("far", "near"), {"leases": Scores(leases)}, pulse(ago=-600 * MINUTE))

    world.run(renew(world.keys, LEASE, [], []) if how == "renew" else reap(world.keys, 10))

    after = world.state()
    assert after["leases"] == Scores({b"far": FRESH, b"near": T0 + 2000.0})
    assert after["pulse"] == Near(T0)


def test_a_long_lease_is_left_alone_while_the_clock_runs_on(world: World) -> None:
    before = world.seed(serving("inc", until=T0 + 600.0 * MINUTE), pulse())

    world.run(renew(world.keys, LEASE, [], []))

    assert world.state() == before | {"pulse": Near(T0)}


def test_after_a_silence_the_sets_of_queues_are_kept_as_well(world: World) -> None:
    """Else a worker that lives on would serve queues of which the server no longer tells it."""
    before = world.seed(serving("inc", until=T0 - 10.0 * MINUTE), pulse(ago=10 * MINUTE))

    world.run(reap(world.keys, 10))

    after = world.state()
    assert after["sets"] == before["sets"]
    assert after["serving"] == before["serving"]
    assert SET.id.encode() in after["set-leases"]
