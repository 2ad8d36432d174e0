"""promote, tick, declare, entry: periodic entries, by any number of keepers and of versions of the code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from taskq.broker.commands.keeping import Promotion, promote
from taskq.broker.commands.ticking import Declared, change_entry, declare, take_ticks
from taskq.broker.protocol import drive
from taskq.broker.ticks import DueTick, Step
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from taskq.periodic.entry import Entry
from taskq.periodic.schedule import Every
from taskq.upkeep.reaper import Reaper
from tests.contract.fleet import more
from tests.contract.world import MINUTE, T0, Near, Scores, State, World, message, messages, raw_id, serving, without

KEEP = 5000
#: Two definitions: their revision, then what scripts do not read.
OLD, NEW = b"0" * 15 + b"1" + b"old", b"0" * 15 + b"2" + b"new"
LAST = b"cron:e:1"


def entry(due: float = T0 - 5.0, raw: bytes = OLD, **fields: Any) -> State:
    """An entry ``e`` whose tick is due."""
    state = {"tick": int(due), "origin": "code", **fields}
    return {
        "periodic": {b"e": raw},
        "ticks": Scores({b"e": due}),
        "entry:e": {name.replace("_", "-").encode(): str(value).encode() for name, value in state.items()},
    }


def sent(tick: float = T0 - 5.0) -> tuple[bytes, bytes, bytes]:
    id_ = b"cron:e:%d" % tick
    return id_, encode_head("t", "q") + encode_envelope(id_, {}, b""), b""


def step(tick: float = T0 - 5.0, raw: bytes = OLD, message: Any = ..., **options: Any) -> Step:
    """Send the tick and wait for the one a minute later, put off by a second."""
    due = DueTick("e", raw, int(tick), b"%d" % tick)
    follows = options.pop("follows", (int(tick) + MINUTE, int(tick) + MINUTE + 1000))
    return Step(due, sent(tick) if message is ... else message, int(tick), follows, **options)


def took(before: State, **fields: Any) -> State:
    """``before``, once the step was taken."""
    changes = {"tick": int(T0 - 5 + MINUTE)} | fields
    state = {name.replace("_", "-").encode(): str(value).encode() for name, value in changes.items()}
    return {"ticks": Scores({b"e": T0 - 5 + MINUTE + 1000}), "entry:e": before["entry:e"] | state}


def seen(world: World) -> Promotion:
    return world.run(promote(world.keys, "me", 100, KEEP))


# -- promote: naming ticks ----------------------------------------------------------------------------------


def test_a_due_tick_is_named_with_its_entry_and_nothing_is_changed(world: World) -> None:
    world.seed(entry())
    before = world.dump()

    promotion = seen(world)

    assert promotion.ticks == [DueTick("e", OLD, T0 - 5, b"%d" % (T0 - 5))]
    assert promotion.now == Near(T0)
    assert world.dump() == before
    assert seen(world).ticks == promotion.ticks, "until somebody takes it, everybody is told"


def test_a_new_entry_has_no_tick_yet(world: World) -> None:
    world.seed(entry() | {"entry:e": {b"origin": b"code"}})

    assert [due.tick for due in seen(world).ticks] == [None]


def test_ticks_are_named_in_the_order_of_their_times_a_hundred_at_once(world: World) -> None:
    names = [f"e{n:03}".encode() for n in range(130)]
    world.seed({"periodic": dict.fromkeys(names, OLD), "ticks": Scores({name: n + 1 for n, name in enumerate(names)})})

    assert [due.name.encode() for due in seen(world).ticks] == names[:100]


def test_a_tick_whose_entry_is_gone_is_not_named(world: World) -> None:
    world.seed({"ticks": Scores({b"e": 1.0})})

    assert (seen(world).ticks, seen(world).wait) == ([], None)


@pytest.mark.parametrize(("scheduled", "wait"), [(None, 3), (T0 + 60_000.0, 3), (T0 + 1000.0, 1)])
def test_the_next_tick_bounds_the_keepers_wait_as_a_scheduled_message_does(
    world: World, scheduled: float | None, wait: float
) -> None:
    world.seed(entry(T0 + 3000.0))
    if scheduled:
        world.seed({"schedule": Scores({raw_id(1): scheduled}), "messages": messages(raw_id(1))})

    promotion = seen(world)

    assert (promotion.moved, promotion.ticks) == (0, [])
    assert promotion.wait == pytest.approx(wait, abs=0.5)
    assert world.state()["keeper"].startswith(b"me ")
    assert world.run(promote(world.keys, "you", 100, KEEP)).wait == pytest.approx(wait + 0.5, abs=0.5)


def test_what_is_due_beside_a_tick_is_promoted_and_what_comes_next_is_told(world: World) -> None:
    """Even if nobody can take the tick, nothing else is late for it."""
    world.seed(entry() | {"ticks": Scores({b"e": T0 - 5, b"f": T0 + 4000}), "periodic": {b"e": OLD, b"f": OLD}})
    world.seed({"schedule": Scores({raw_id(1): 1.0, raw_id(2): T0 + 2000.0})})
    world.seed({"messages": messages(raw_id(1), raw_id(2))})

    promotion = seen(world)

    assert (promotion.moved, [due.name for due in promotion.ticks]) == (1, ["e"])
    assert promotion.wait == pytest.approx(2, abs=0.5)
    assert "keeper" not in world.state(), "whoever takes the tick comes again and becomes the keeper then"


# -- tick -------------------------------------------------------------------------------------------------


def test_a_tick_is_sent_as_a_call_is_and_the_next_one_is_set(world: World) -> None:
    before = world.seed(serving("inc"), entry(sent=4, late_max=2))

    assert world.run(take_ticks(world.keys, [step()])) == b"+"

    state = world.state()
    late = state["entry:e"][b"late"]
    assert 5 <= int(late) < 1000
    id_ = sent()[0]
    news = {"sent": 5, "last": int(T0 - 5), "id": id_.decode(), "late": int(late), "late_max": int(late)}
    assert state == before | took(before, **news) | {
        "messages": {id_: state["messages"][id_]},
        "queue:q": [id_],
        "ready:set": Scores({b"q": Near(T0)}),
        "bell:set": [b"1"],
        "counters": {b"q|accepted": b"1"},
    }
    assert state["messages"][id_][:2] + state["messages"][id_][10:] == sent()[1]
    assert world.balances() == {"q": 0}


def test_a_step_that_was_taken_is_not_taken_again(world: World) -> None:
    world.seed(entry())
    world.run(take_ticks(world.keys, [step()]))
    before = world.state()

    assert world.run(take_ticks(world.keys, [step()])) == b"x"
    assert world.state() == before


@pytest.mark.parametrize(
    "changed",
    [
        entry(T0 - 4.0),
        entry(raw=NEW),
        {"ticks": Scores({b"e": T0 - 5})},
        {"periodic": {b"e": OLD}, "entry:e": {b"paused": b"by me"}},
        {},
    ],
    ids=["another due time", "another definition", "removed", "paused", "never there"],
)
def test_a_step_decided_on_what_is_no_longer_so_changes_nothing(world: World, changed: State) -> None:
    before = world.seed(changed)

    assert world.run(take_ticks(world.keys, [step()])) == b"x"
    assert world.state() == before


def test_of_steps_taken_together_each_stands_for_itself(world: World) -> None:
    world.seed(entry() | {"periodic": {b"e": OLD, b"f": OLD}, "ticks": Scores({b"e": T0 - 5, b"f": T0 - 3})})
    other = Step(DueTick("f", NEW, 1, b"%d" % (T0 - 3)), sent(7), 7, None)

    assert world.run(take_ticks(world.keys, [other, step()])) == b"x+"
    assert world.state()["ticks"] == Scores({b"e": T0 - 5 + MINUTE + 1000, b"f": T0 - 3})


@pytest.mark.parametrize("there", ["messages", "result"])
def test_a_tick_that_was_sent_before_is_recognised_by_its_id(world: World, there: str) -> None:
    """For example since the clock went back, or a snapshot of the server was restored."""
    id_ = sent()[0]
    world.seed(entry(sent=1))
    world.seed({"messages": messages(id_)} if there == "messages" else {f"result:{id_.decode()}": b"S"})
    before = world.state()

    assert world.run(take_ticks(world.keys, [step()])) == b"="
    assert world.state() == before | took(before)


def test_the_last_tick_of_an_entry_leaves_it_without_one(world: World) -> None:
    before = world.seed(entry())

    assert world.run(take_ticks(world.keys, [step(message=None, follows=None)])) == b"."
    assert world.state() == without(before, "ticks") | {"entry:e": {b"origin": b"code"}}


def test_ticks_that_were_left_out_are_counted(world: World) -> None:
    before = world.seed(entry(left_out=2))

    assert world.run(take_ticks(world.keys, [step(message=None, dropped=True)])) == b"."
    assert world.state() == before | took(before, left_out=3)


def test_a_late_tick_that_stands_for_older_ones_is_as_late_as_it_is_itself(world: World) -> None:
    """The due time is that of the oldest missed one; the message is of the newest."""
    world.seed(entry(T0 - 60.0 * MINUTE))
    oldest = DueTick("e", OLD, 0, b"%d" % (T0 - 60 * MINUTE))
    newest = Step(oldest, sent(T0 - MINUTE), T0 - MINUTE, (T0, T0), dropped=True)

    assert world.run(take_ticks(world.keys, [newest])) == b"+"
    state = world.state()["entry:e"]
    assert (state[b"late"], state[b"late-max"], state[b"last"]) == (Near(MINUTE), Near(MINUTE), b"%d" % (T0 - MINUTE))


def test_the_latest_tick_is_remembered(world: World) -> None:
    world.seed(entry(late_max=50_000))
    world.run(take_ticks(world.keys, [step()]))

    assert world.state()["entry:e"][b"late-max"] == b"50000"


@pytest.mark.parametrize(
    ("last", "answer"),
    [
        ({"messages": {LAST: message(LAST)}, "queue:q": [LAST]}, b"s"),
        ({"messages": {LAST: message(LAST)}, "schedule": Scores({LAST: T0 + MINUTE})}, b"s"),
        ({"messages": {LAST: message(LAST)}, "dead:q": Scores({LAST: 1.0}), "reasons": {LAST: b"failed\n"}}, b"+"),
        ({"result:cron:e:1": b"S"}, b"+"),
        ({}, b"+"),
    ],
    ids=["waiting", "retried later", "dead", "ended", "forgotten"],
)
def test_an_entry_that_must_not_overlap_is_skipped_while_its_last_message_lives(
    world: World, last: State, answer: bytes
) -> None:
    before = world.seed(entry(id=LAST.decode()), last)

    assert world.run(take_ticks(world.keys, [step(alone=True)])) == answer
    if answer == b"s":
        assert world.state() == before | took(before, skipped=1)


def test_an_entry_that_may_overlap_is_sent_all_the_same(world: World) -> None:
    world.seed(entry(id=LAST.decode()), {"messages": {LAST: message(LAST)}, "queue:q": [LAST]})

    assert world.run(take_ticks(world.keys, [step()])) == b"+"


UNIQUE = more(lock="d0:t|k", limited=True)


def special(head: bytes = b"", options: bytes = b"", tick: float = T0 - 5.0) -> tuple[bytes, bytes, bytes]:
    """The message of an entry whose task has a flow option."""
    id_ = b"cron:e:%d" % tick
    return id_, encode_head("t", "q", more=head) + encode_envelope(id_, {}, b""), options


def test_a_tick_that_is_another_messages_unique_work_is_skipped_and_counted(world: World) -> None:
    holder = {"messages": {LAST: message(LAST, more=UNIQUE)}, "queue:q": [LAST], "unique": {b"t|k": b"0 " + LAST}}
    before = world.seed(entry(skipped=1), holder)

    assert world.run(take_ticks(world.keys, [step(message=special(UNIQUE)), step(raw=NEW)])) == b"ux"
    assert world.state() == before | took(before, skipped=2)


def test_a_tick_puts_a_debounced_message_off_as_any_call_does(world: World) -> None:
    head = more(lock="d0:t|", debounce="9000:0", limited=True)
    waiting = {"messages": {LAST: message(LAST, more=head)}, "schedule": Scores({LAST: T0 + 1000.0})}
    before = world.seed(entry(), waiting, {"unique": {b"t|": b"0 " + LAST}})

    assert world.run(take_ticks(world.keys, [step(message=special(head))])) == b"u"
    state = world.state()
    assert state["schedule"] == Scores({LAST: Near(T0 + 9000)})
    assert state["entry:e"] == took(before, skipped=1)["entry:e"]
    assert sent()[0] in state["messages"][LAST]


def test_a_tick_whose_queue_is_full_stays_and_is_due_again_soon(world: World) -> None:
    before = world.seed(serving("inc"), entry(), {"messages": messages(LAST), "queue:q": [LAST]})
    world.stop_clock()
    full = step(message=special(options=b"m1"), dropped=True)

    assert world.run(take_ticks(world.keys, [full])) == b"!"
    waits = {b"waits": b"%d" % (T0 - 5), b"full": b"1"}
    assert world.state() == before | {"ticks": Scores({b"e": T0 + 1000}), "entry:e": before["entry:e"] | waits}
    assert world.run(take_ticks(world.keys, [full])) == b"x", "it is due later now"


def test_a_tick_that_waited_for_room_is_as_late_as_it_is_and_counted_once(world: World) -> None:
    before = world.seed(serving("inc"), entry(), {"messages": messages(LAST), "queue:q": [LAST]})
    world.stop_clock()
    for seconds in (0, 1, 2):
        world.at(T0 + 1000 * seconds)
        (due,) = seen(world).ticks
        if seconds == 2:
            world.raw("DEL", world.keys["queue:q"])
        answer = world.run(take_ticks(world.keys, [replace(step(message=special(options=b"m1")), due=due)]))
        assert answer == (b"+" if seconds == 2 else b"!")

    fields = {"full": 1, "sent": 1, "last": int(T0 - 5), "id": sent()[0].decode(), "late": 2005, "late_max": 2005}
    assert world.state()["entry:e"] == took(before, **fields)["entry:e"]


def test_a_tick_that_waits_for_room_is_kept_by_newer_code_and_not_by_a_pause(world: World) -> None:
    world.seed(entry(T0 + 1000.0, waits=int(T0 - 5)))
    world.run(change_entry(world.keys, "define", "e", NEW, 1))
    assert world.state()["ticks"] == Scores({b"e": T0 + 1000.0})
    assert b"tick" in world.state()["entry:e"]

    world.run(change_entry(world.keys, "pause", "e", "by me"))
    assert not {b"waits", b"tick"} & set(world.state()["entry:e"])


def test_an_entry_run_by_command_is_not_put_off_if_its_queue_is_full(world: World) -> None:
    before = world.seed(entry(), {"messages": messages(LAST), "queue:q": [LAST]})
    now = Step(DueTick("e", OLD, None, b"now"), special(options=b"m1", tick=T0), T0, None)

    assert world.run(take_ticks(world.keys, [now])) == b"!"
    assert world.state() == before


def test_an_entry_run_by_command_keeps_its_tick(world: World) -> None:
    """Also one that is paused: its last message is the one sent now."""
    before = world.seed(without(entry(), "ticks") | {"entry:e": {b"paused": b"by me"}})
    now = Step(DueTick("e", OLD, None, b"now"), sent(T0), T0, None)

    assert world.run(take_ticks(world.keys, [now])) == b"+"
    state = world.state()
    assert state["entry:e"] == {b"paused": b"by me", b"sent": b"1", b"last": b"%d" % T0, b"id": sent(T0)[0]}
    assert set(state) == {*before, "messages", "queue:q", "counters"}


# -- what keeps the time ------------------------------------------------------------------------------------


def minutely(name: str, queue: str = "q", options: bytes = b"") -> Entry:
    return Entry(name, Every(MINUTE), encode_head("t", queue), {}, b"", options)


def pass_once(reaper: Reaper, world: World) -> int:
    """Keep the time until there is nothing more to do at once; answers how many calls that took."""
    calls = 1
    while drive(reaper.promote(), world.connection) == 0.0:
        calls += 1
        assert calls < 20
    return calls


@pytest.mark.parametrize("bad", [b"not an entry", b"0" * 16 + b"nonsense", None])
def test_ticks_of_entries_that_cannot_be_read_are_in_nobodys_way(world: World, bad: bytes | None) -> None:
    """Of 100, of 250 there are: those that come behind them are sent all the same, whatever is wrong with the first."""
    names = [b"bad%03d" % n for n in range(250)]
    world.seed({"ticks": Scores(dict.fromkeys(names, 1.0))}, {"periodic": dict.fromkeys(names, bad)} if bad else {})
    world.seed(entry(T0 - 5.0, minutely("e").stored))
    reaper = Reaper(world.keys, "me", 15.0)

    pass_once(reaper, world)
    assert world.state()["queue:q"] == [b"cron:e:%d" % (T0 - 5)]
    world.at(T0 + 2 * MINUTE)
    pass_once(reaper, world)
    assert len(world.state()["queue:q"]) > 1, "the next as well"


def test_an_entry_whose_state_cannot_be_written_is_in_nobodys_way(world: World) -> None:
    world.seed(entry(T0 - 5.0, minutely("e").stored))
    for name in ("list", "string"):
        world.seed({"periodic": {name.encode(): minutely(name).stored}, "ticks": Scores({name.encode(): 1.0})})
    world.seed({"entry:list": [b"x"], "entry:string": b"x"})

    pass_once(Reaper(world.keys, "me", 15.0), world)

    assert world.state()["queue:q"] == [b"cron:e:%d" % (T0 - 5)]
    world.raw("DEL", world.keys["entry:list"], world.keys["entry:string"])


def test_a_tick_that_one_of_several_cannot_take_keeps_the_others_from_nothing(world: World) -> None:
    """As where a queue that may have so many messages is a key of the wrong type."""
    world.seed(entry(T0 - 5.0, minutely("e").stored))
    world.seed({"periodic": {b"p": minutely("p", "broken", b"m9").stored}, "ticks": Scores({b"p": 1.0})})
    world.seed({"entry:p": {b"tick": b"1"}, "queue:broken": b"x"})

    pass_once(Reaper(world.keys, "me", 15.0), world)

    assert world.state()["queue:q"] == [b"cron:e:%d" % (T0 - 5)]
    world.raw("DEL", world.keys["queue:broken"])


def test_ticks_that_nobody_will_run_are_said_once_until_somebody_serves_their_queue(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.seed(entry(T0 - 5.0, minutely("e").stored))
    reaper = Reaper(world.keys, "me", 15.0)

    for n in range(1, 4):
        pass_once(reaper, world)
        world.at(T0 + n * MINUTE)
    assert caplog.text.count("periodic entry e: no worker serves its queue") == 1
    assert int(world.state()["entry:e"][b"sent"]) == len(world.state()["queue:q"]) == 3

    world.seed(serving("inc"))
    pass_once(reaper, world)
    world.raw("DEL", world.keys["serving"])
    world.at(T0 + 4 * MINUTE)
    pass_once(reaper, world)
    assert caplog.text.count("no worker serves its queue") == 2


# -- declare ----------------------------------------------------------------------------------------------

ONE, TWO, THREE = (f"{n:016}" for n in (1, 2, 3))


def put(world: World, revision: str, entries: dict[str, bytes], source: str = "jobs", force: bool = False) -> Declared:
    return world.run(declare(world.keys, source, revision, entries, force=force))


def definitions(world: World) -> dict[bytes, bytes]:
    return world.state().get("periodic", {})  # type: ignore[no-any-return]


def test_new_code_puts_its_entries_in_place_due_at_once_for_their_first_tick(world: World) -> None:
    assert put(world, ONE, {"e": OLD, "f": OLD}) == Declared("new", {"e": "added", "f": "added"})
    assert world.state() == {
        "periodic": {b"e": OLD, b"f": OLD},
        "ticks": Scores({b"e": Near(T0), b"f": Near(T0)}),
        "entry:e": {b"origin": b"code"},
        "entry:f": {b"origin": b"code"},
        "declared": {b"jobs": b" e f "},
        "revisions": {b"jobs": f" {ONE}".encode()},
        "alarm": [b"1"],
    }


def test_the_same_code_changes_nothing_however_many_workers_start(world: World) -> None:
    put(world, ONE, {"e": OLD})
    before = world.dump()

    assert put(world, ONE, {"e": OLD}) == Declared("same", {})
    assert world.dump() == before


def test_newer_code_replaces_adds_and_removes(world: World) -> None:
    put(world, ONE, {"changed": OLD, "kept": OLD, "dropped": OLD})
    world.seed({"ticks": Scores({b"changed": T0 + MINUTE, b"kept": T0 + MINUTE, b"dropped": T0 + MINUTE})})
    world.seed({"entry:changed": {b"tick": b"7", b"sent": b"3"}})

    assert put(world, TWO, {"changed": NEW, "kept": OLD, "more": NEW}).entries == {
        "changed": "replaced",
        "more": "added",
        "dropped": "removed",
    }
    state = world.state()
    assert state["periodic"] == {b"changed": NEW, b"kept": OLD, b"more": NEW}
    assert state["ticks"] == Scores({b"changed": Near(T0), b"kept": T0 + MINUTE, b"more": Near(T0)})
    assert state["entry:changed"] == {b"origin": b"code", b"sent": b"3"}
    assert "entry:dropped" not in state


def test_an_old_workers_start_restores_nothing(world: World) -> None:
    put(world, ONE, {"changed": OLD, "dropped": OLD})
    put(world, TWO, {"changed": NEW, "more": NEW})
    before = world.dump()

    old = put(world, ONE, {"changed": OLD, "dropped": OLD})

    assert old == Declared("old", {"changed": "replaced", "dropped": "added", "more": "removed"}), "what it would have"
    assert world.dump() == before


def test_code_from_before_is_the_newest_again_if_somebody_says_so(world: World) -> None:
    put(world, ONE, {"e": OLD})
    put(world, TWO, {"e": NEW})

    assert put(world, ONE, {"e": OLD}, force=True).entries == {"e": "replaced"}
    assert definitions(world) == {b"e": OLD}
    assert world.state()["revisions"] == {b"jobs": f" {TWO} {ONE}".encode()}
    assert put(world, ONE, {"e": OLD}).code == "same"
    assert put(world, TWO, {"e": NEW}).code == "old"


def test_two_apps_that_differ_do_not_take_turns(world: World) -> None:
    """The one that came first at last has it, whoever starts again."""
    put(world, ONE, {"e": OLD}, "a")
    assert put(world, TWO, {"e": NEW}, "b").entries == {"e": "replaced"}

    for _ in range(2):
        assert put(world, ONE, {"e": OLD}, "a") == Declared("same", {"e": "replaced"})
        assert put(world, TWO, {"e": NEW}, "b") == Declared("same", {})
    assert definitions(world) == {b"e": NEW}


def test_an_entry_that_other_code_declares_too_is_not_removed(world: World) -> None:
    put(world, ONE, {"e": OLD, "mine": OLD}, "a")
    put(world, TWO, {"e": OLD}, "b")

    assert put(world, THREE, {}, "a").entries == {"mine": "removed"}
    assert definitions(world) == {b"e": OLD}


def test_an_entry_added_by_command_is_not_removed_by_code(world: World) -> None:
    put(world, ONE, {"e": OLD})
    world.run(change_entry(world.keys, "remove", "e"))
    world.run(change_entry(world.keys, "define", "e", NEW, 0))

    assert put(world, TWO, {}) == Declared("new", {})
    assert definitions(world) == {b"e": NEW}


def test_a_due_tick_is_not_lost_when_its_entry_is_replaced(world: World) -> None:
    before = world.seed(entry())

    assert put(world, ONE, {"e": NEW}).entries == {"e": "replaced"}
    state = world.state()
    assert (state["ticks"], state["entry:e"]) == (before["ticks"], before["entry:e"])


def test_a_paused_entry_stays_paused_when_it_is_replaced(world: World) -> None:
    world.seed(entry())
    world.run(change_entry(world.keys, "pause", "e", b"by me"))

    assert put(world, ONE, {"e": NEW}).entries == {"e": "replaced"}
    assert "ticks" not in world.state()
    assert world.state()["entry:e"] == {b"origin": b"code", b"paused": b"by me"}


def test_the_last_hundred_revisions_are_remembered(world: World) -> None:
    for n in range(105):
        put(world, f"{n:016}", {})

    assert [put(world, f"{n:016}", {}).code for n in (104, 103, 5)] == ["same", "old", "old"]
    assert put(world, f"{4:016}", {}).code == "new"
    assert len(world.state()["revisions"][b"jobs"]) == 1700


def again(world: World, since: int, entries: dict[str, bytes], revision: str = ONE) -> Declared:
    """A worker that was announced at ``since`` declares its entries, as it does every minute."""
    return world.run(declare(world.keys, "jobs", revision, entries, force=False, announced=since))


def test_a_living_worker_puts_back_what_the_server_has_lost_of_its_entries(world: World) -> None:
    again(world, T0, {"e": OLD})
    world.seed({"ticks": Scores({b"e": T0 + MINUTE}), "entry:e": {b"tick": b"%d" % (T0 + MINUTE), b"sent": b"3"}})
    world.raw("DEL", world.keys["alarm"])
    before = world.state()
    for lost in [*before.keys() - {"ticks"}, "everything"]:  # a lost tick is the audit's
        world.raw("DEL", *(world.keys[name] for name in (before if lost == "everything" else [lost])))

        again(world, T0, {"e": OLD})

        after = world.state()
        assert after["periodic"] == before["periodic"], lost
        assert list(after["ticks"]) == [b"e"], lost
        assert (after["declared"], after["revisions"]) == (before["declared"], before["revisions"]), lost
        assert again(world, T0, {"e": OLD}) == Declared("same", {}), "said once"
        for name in world.names():
            world.raw("DEL", world.keys[name])
        world.seed(before)


def test_a_worker_that_says_it_again_does_not_undo_what_newer_code_or_a_command_did(world: World) -> None:
    again(world, T0, {"changed": OLD, "removed": OLD})
    again(world, T0 + 1, {"changed": NEW, "removed": NEW}, TWO)
    world.run(change_entry(world.keys, "remove", "removed"))
    before = world.dump()

    again(world, T0, {"changed": OLD, "removed": OLD})
    again(world, T0 + 1, {"changed": NEW, "removed": NEW}, TWO)
    assert world.dump() == before

    world.raw("DEL", world.keys["revisions"])
    assert again(world, T0, {"changed": OLD, "removed": OLD}).code == "old", "there is somebody newer"
    assert definitions(world) == {b"changed": NEW}


# -- entry ------------------------------------------------------------------------------------------------


def test_an_entry_is_defined_once_unless_it_is_to_be_replaced(world: World) -> None:
    assert world.run(change_entry(world.keys, "define", "e", OLD, 0)) == "defined"
    before = world.state()
    assert before == {
        "periodic": {b"e": OLD},
        "ticks": Scores({b"e": Near(T0)}),
        "entry:e": {b"origin": b"command"},
        "alarm": [b"1"],
    }

    assert world.run(change_entry(world.keys, "define", "e", NEW, 0)) == "exists"
    assert world.state() == before
    assert world.run(change_entry(world.keys, "define", "e", NEW, 1)) == "replaced"
    assert world.state() == before | {"periodic": {b"e": NEW}}


def test_a_removed_entry_leaves_nothing(world: World) -> None:
    world.seed(entry())

    assert world.run(change_entry(world.keys, "remove", "e")) == "removed"
    assert world.state() == {}


def test_a_paused_entry_waits_for_no_tick_until_it_is_resumed(world: World) -> None:
    before = world.seed(entry())

    assert world.run(change_entry(world.keys, "pause", "e", b"by me")) == "paused"
    assert world.state() == without(before, "ticks") | {"entry:e": {b"origin": b"code", b"paused": b"by me"}}
    assert seen(world).ticks == []
    assert world.run(change_entry(world.keys, "pause", "e", b"by you")) == "paused"
    assert world.run(change_entry(world.keys, "resume", "e")) == "resumed"
    assert without(world.state(), "alarm") == before | {
        "ticks": Scores({b"e": Near(T0)}),
        "entry:e": {b"origin": b"code"},
    }
    world.at(T0 + 1000)
    assert [due.tick for due in seen(world).ticks] == [None], "its next tick is the next one from now"


@pytest.mark.parametrize("verb", ["remove", "pause", "resume"])
def test_an_entry_that_is_not_there_is_unknown(world: World, verb: str) -> None:
    assert world.run(change_entry(world.keys, verb, "e", b"by me")) == "unknown"
    assert world.state() == {}


def test_an_entry_that_is_not_paused_is_not_resumed(world: World) -> None:
    world.seed(entry())
    before = world.dump()

    assert world.run(change_entry(world.keys, "resume", "e")) == "running"
    assert world.dump() == before
