"""Why a message does not run: facts into sentences."""

from __future__ import annotations

import re
import struct
from typing import Any

import msgpack
import pytest

from taskq.message.details import error_detail
from taskq.message.envelope import encode_envelope
from taskq.message.head import encode_head
from taskq.tasks.limits import interval_ms, rate_text
from taskq.views.why import pace, sentence
from taskq.views.words import moment, one_line, span

NOW = 2_000_000_000_000
ID = bytes.fromhex("01d1a94a200070008000000000000001")  # made at NOW
TEXT = "01d1a94a-2000-7000-8000-000000000001"


def field(letter: bytes, content: bytes) -> bytes:
    return letter + bytes([len(content)]) + content


def stored(headers: dict[str, Any] | None = None, more: bytes = b"") -> bytes:
    head = encode_head("mail", "post", more=more)
    return head[:2] + struct.pack(">d", NOW - 9000.0) + head[2:] + encode_envelope(ID, headers or {}, b"")


def info(**more: Any) -> bytes:
    return bytes(
        msgpack.packb({"worker": "shop.host:7", "child": 2, "queues": ["post"], "tasks": {"mail": b"f"}, **more})
    )


def told(raw_id: bytes = ID, headers: dict[str, Any] | None = None, more: bytes = b"", **facts: Any) -> str:
    """The sentence for these facts, of a message that waits and is served unless they say otherwise."""
    waits: dict[str, Any] = {"value": stored(headers, more), "served": 1, "incarnations": 1, "workers": [info()]}
    reply: list[Any] = []
    for name, value in {"now": b"%d" % NOW, "ttl": b"3600000", **waits, **facts}.items():
        if value is not None:
            reply += [name.replace("_", "-").encode(), value]
    return sentence(raw_id, reply)


def gate(
    name: str, opens: float | None = None, interval: float = 0, slots: int = 0, used: int = 0, *holders: bytes
) -> Any:
    opening = b"" if opens is None else b"%d" % opens
    return [name.encode(), b"0", opening, b"%.6f" % interval, b"%d" % slots, b"%d" % used, *holders]


FAILED = error_detail("KeyError", "no such user.", "Traceback ...")
AT = "2033-05-18 03:33:20 UTC"

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": (
        {"value": None, "now": b"%d" % (NOW + 7_200_000)},
        f"No message and no result of id {TEXT} exists; its id was made 2 h ago, and results are kept for 60 min.",
    ),
    "unknown, with an id that does not say when it was made": (
        {"value": None, "raw_id": b"order-7"},
        "No message and no result of id order-7 exists: it was never sent, or ended longer ago than results are "
        "kept for 60 min.",
    ),
    "returned": ({"result": b"S\x01"}, "It has ended: the task has returned."),
    "failed": ({"result": b"F" + FAILED}, "It has failed: KeyError: no such user."),
    "given up": ({"result": b"Dabandoned"}, "It was given up: abandoned."),
    "expired": ({"result": b"Xexpired", "value": None}, "It was discarded, expired."),
    "revoked": ({"result": b"Xrevoked"}, "It was revoked."),
    "revoked, and why": ({"result": b"Xrevoked\na\nmistake."}, "It was revoked: a mistake."),
    "dead": (
        {"reason": b"failed\n" + FAILED, "died": b"%d" % NOW},
        f"It is a dead letter since {AT}, failed (KeyError: no such user); to run it again: taskq dead replay {TEXT}.",
    ),
    "dead, and its result": (
        {"result": b"F" + FAILED, "reason": b"failed\n" + FAILED, "died": b"%d" % NOW},
        f"It is a dead letter since {AT}, failed (KeyError: no such user); to run it again: taskq dead replay {TEXT}.",
    ),
    "dead, and unreadable": (
        {"value": b"?", "reason": b"undecodable\n", "died": b"%d" % NOW},
        f"It is a dead letter since {AT}, undecodable; to run it again: taskq dead replay {TEXT}.",
    ),
    "dead, in a queue that it does not name": (
        {"value": b"?", "reason": b"undecodable\n"},
        f"It is a dead letter, undecodable; to run it again: taskq dead replay {TEXT}.",
    ),
    "unreadable": (
        {"value": b"\x09"},
        "It cannot be read: a message of format version 9, this taskq reads 1.",
    ),
    "running": (
        {"since": b"%d" % (NOW - 200_000), "worker": info(), "lease": b"%d" % (NOW + 1)},
        "It runs in worker shop.host:7, child 2, for 3 min.",
    ),
    "running, in a worker that is gone": (
        {"since": b"%d" % (NOW - 20_000), "worker": info(), "lease": b"%d" % (NOW - 5000)},
        "It runs in worker shop.host:7, child 2, for 20 s; but that worker has given no sign of life, and its lease "
        "ended 5.0 s ago.",
    ),
    "running, and revoked": (
        {"since": b"%d" % NOW, "worker": info(), "lease": b"%d" % (NOW + 1), "revoked": b"a mistake"},
        "It runs in worker shop.host:7, child 2, for 0.0 s; it was revoked: a mistake and is being stopped.",
    ),
    "waiting, and revoked": ({"revoked": b""}, "It was revoked and ends when its turn comes."),
    "scheduled": (
        {"due": b"%d" % (NOW + 180_000)},
        "It is scheduled for 2033-05-18 03:36:20 UTC (in 3 min).",
    ),
    "due": ({"due": b"%d" % NOW}, f"It is scheduled for {AT} (now)."),
    "a retry": (
        {"due": b"%d" % (NOW + 3000), "headers": {"retries": 3, "of": 5, "error": "KeyError: no such user"}},
        "It waits for retry 3 of 5, due 2033-05-18 03:33:23 UTC (in 3.0 s), after KeyError: no such user.",
    ),
    "a retry that no number limits": (
        {"due": b"%d" % (NOW + 3000), "headers": {"retries": 3, "of": None, "error": ""}},
        "It waits for retry 3, due 2033-05-18 03:33:23 UTC (in 3.0 s).",
    ),
    "crashed twice": (
        {"due": b"%d" % (NOW + 1000), "crashes": b"2"},
        "It waits to run alone, since its process died 2 times; due 2033-05-18 03:33:21 UTC (in 1.0 s).",
    ),
    "of a task that no worker knew": (
        {"due": b"%d" % (NOW + 60_000), "headers": {"unknown": NOW}},
        "It waits until 2033-05-18 03:34:20 UTC (in 60 s) for a worker that knows task mail: the last one did not.",
    ),
    "a paused queue": (
        {"paused": b"%d 0 ann@host\nthe provider is down" % (NOW - 600_000)},
        "Queue post was paused 10 min ago by ann@host, until it is resumed: the provider is down.",
    ),
    "a paused task": (
        {"task_paused": b"%d %d ann@host\n" % (NOW, NOW + 60_000)},
        "Task mail was paused 0.0 s ago by ann@host, until 2033-05-18 03:34:20 UTC (in 60 s).",
    ),
    "a queue that nobody serves": (
        {"served": 0, "workers": [], "incarnations": 0},
        "No live worker serves queue post; start one: taskq worker -A ... -Q post.",
    ),
    "a task that nobody has": (
        {"workers": [info(tasks={"bill": b""}), info(queues=["other"])], "incarnations": 2},
        "No live worker has task mail; those that serve queue post do not know it.",
    ),
    "a task that nobody has, handed on": (
        {"place": b"mail#t", "lanes": b"", "ahead": 0, "of": 1},
        "No live worker has task mail; those that serve queue post do not know it.",
    ),
    "handed on to the lane that runs it": (
        {"place": b"mail#t", "lanes": b" s1", "ahead": 1, "of": 7, "served": 0},
        "It waits for children that run task mail; it is number 2 of 7.",
    ),
    "not every worker was looked at": (
        {"workers": [info(tasks={})] * 100, "incarnations": 101, "ahead": 0, "of": 1},
        "It is number 1 of 1 in queue post.",
    ),
    "a rate": (
        {"gates": [gate("mail#1", NOW + 2000, 600)], "ahead": 4, "of": 10, "place": b"mail#1"},
        "It is held up by limit 1 of task mail (100/m): the next may start at 2033-05-18 03:33:22 UTC (in 2.0 s); it "
        "is number 5 of 10.",
    ),
    "a concurrency of a key": (
        {"gates": [gate("mail#2=u7", None, 0, 2, 2, ID, b"order-7")]},
        f"It is held up by limit 2 of task mail, key u7 (2 at a time): all 2 are in use, by {TEXT}, order-7.",
    ),
    "more slots than are named": (
        {"gates": [gate("mail#1", None, 100, 4, 4, b"a", b"b", b"c")]},
        "It is held up by limit 1 of task mail (10/s, 4 at a time): all 4 are in use, by a, b, c, ....",
    ),
    "told to slow down": (
        {"gates": [gate("mail#0", NOW + 30_000)]},
        "It is held up by what task mail asked for by RateLimited: the next may start at 2033-05-18 03:33:50 UTC "
        "(in 30 s).",
    ),
    "the gate of a pause that is over": (
        {"gates": [gate("mail#p")], "ahead": 0, "of": 1, "place": b"queue"},
        "It is number 1 of 1 in queue post.",
    ),
    "an open breaker": (
        {"gates": [gate("mail#1", NOW), gate("mail#b", NOW + 60_000)]},
        "The breaker of task mail is open, since it kept failing; it lets one through at 2033-05-18 03:34:20 UTC "
        "(in 60 s).",
    ),
    "a breaker that tries": (
        {"gates": [gate("mail#b")]},
        "The breaker of task mail has let one message through, and waits for what becomes of it.",
    ),
    "a suspect": (
        {"place": b"suspects", "ahead": 1, "of": 2},
        "It waits to run alone, since a process died while it may have been running; it is number 2 of 2.",
    ),
    "a suspect with a death": (
        {"place": b"suspects", "ahead": 0, "of": 1, "crashes": b"1"},
        "It waits to run alone, since its process died once; it is number 1 of 1.",
    ),
    "in turn": (
        {"place": b"queue", "ahead": 4999, "of": 10_000},
        "It is number 5,000 of 10,000 in queue post.",
    ),
    "next": ({"place": b"queue", "ahead": 0, "of": 3}, "It is number 1 of 3 in queue post."),
    "far behind": (
        {"place": b"queue", "of": 1_000_000},
        "It is behind more than 10,000 others of 1,000,000 in queue post.",
    ),
    "not where it is looked for": ({"place": b"queue", "of": 3}, "It waits in queue post."),
    "by priority": (
        {"place": b"ranked", "ahead": 2, "of": 3, "more": field(b"p", b"\x8a")},
        "It is number 3 of 3 in queue post, by its priority.",
    ),
    "by fairness": (
        {"place": b"ranked", "ahead": 2, "of": 3, "more": field(b"l", b"") + field(b"f", b"12345678post")},
        "It is number 3 of 3 in queue post, where each key has its turn.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_reason_is_one_sentence(case: str) -> None:
    facts, expected = CASES[case]

    text = told(**facts)

    assert text == expected
    assert "\n" not in text


def test_what_holds_a_message_comes_before_what_delays_it() -> None:
    facts: dict[str, Any] = {
        "paused": b"%d 0 ann\n" % NOW,
        "served": 0,
        "gates": [gate("mail#1", NOW, 600)],
        "place": b"suspects",
        "ahead": 0,
        "of": 1,
    }
    found = []
    for gone in ("paused", "served", "gates", "place"):
        found.append(told(**facts).split()[0:3])
        facts[gone] = 1 if gone == "served" else None

    assert found == [["Queue", "post", "was"], ["No", "live", "worker"], ["It", "is", "held"], ["It", "waits", "to"]]


def test_what_others_wrote_cannot_leave_the_sentence() -> None:
    assert one_line("two\nlines \x1b[31m and more.") == "two lines [31m and more"
    assert len(one_line("x" * 1000)) == 300


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_a_span_is_written_in_its_largest_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_a_moment_that_is_none_is_written_all_the_same() -> None:
    assert moment(1e20) == "100000000000000000000 ms since the epoch"


@pytest.mark.parametrize("rate", ["1/s", "50/s", "100/m", "1/h", "7/d", "1000/s", "61/m"])
def test_a_rate_reads_as_it_was_written(rate: str) -> None:
    assert rate_text(interval_ms(rate)) == rate


@pytest.mark.parametrize(
    ("rate", "text"), [("5/10s", "30/m"), ("0.5/s", "30/m"), ("2.5/s", "150/m"), ("0.5/d", "0.5/d")]
)
def test_a_rate_is_a_whole_number_where_a_unit_allows_it(rate: str, text: str) -> None:
    assert rate_text(interval_ms(rate)) == text


def test_a_sentence_ends_once() -> None:
    assert all(re.search(r"[^.]\.$", expected) or expected.endswith("....") for _, expected in CASES.values())


def place(at_ms: int, ahead: int | None, where: bytes = b"queue") -> list[Any]:
    """An answer about a message with so many before it, so many ms later."""
    reply = [b"now", b"%d" % (NOW + at_ms), b"value", stored(), b"place", where, b"of", 300]
    return reply if ahead is None else [*reply, b"ahead", ahead]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        # 9 in a minute, with 1,600 to go: three hours, and not what the age of the first message suggests.
        (
            place(0, 1609),
            place(60_000, 1600),
            "In 60 s 9 of those before it went; at that pace its turn comes in 107 min to 9 h.",
        ),
        (
            place(0, 1000),
            place(10_000, 600),
            "In 10 s 400 of those before it went; at that pace its turn comes in 14 s to 17 s.",
        ),
        (
            place(0, 48),
            place(10_000, 46),
            "In 10 s 2 of those before it went; at that pace its turn comes in 95 s or later.",
        ),
        (place(0, 5), place(10_000, 0), "In 10 s 5 of those before it went, and it is the next."),
        (place(0, 5), place(10_000, 5), "In 10 s none of those before it went."),
        (place(0, 5), place(10_000, 6), "In 10 s more came before it than went."),
        (place(0, 5), place(10_000, 3, b"mail#1"), ""),
        (place(0, 5), place(10_000, None), ""),
    ],
)
def test_a_pace_is_what_was_measured_and_a_range(before: list[Any], after: list[Any], text: str) -> None:
    assert pace(ID, before, after) == text
