"""Why a message does not run, as one sentence, made of the facts that ``why.lua`` reads at one instant.

Pure: the first of the explanations below that applies is the sentence. What holds a message for certain comes before
what merely delays it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from taskq.errors import DecodeError
from taskq.message.details import read_error_detail
from taskq.message.ids import id_time, id_to_text
from taskq.message.letters import DISCARDED, FAILURE, FIELD_FAIR, FIELD_PRIORITY, SUCCESS
from taskq.message.stored import decode_fields
from taskq.spelling import count
from taskq.views.facts import Facts
from taskq.views.words import moment, one_line, span
from taskq.views.workers import WorkerInfo

#: How deep ``why.lua`` looks into a list, and at how many incarnations.
_MOST, _FEW = 10_000, 100


def sentence(raw_id: bytes, reply: Sequence[Any]) -> str:
    """Say in one sentence why a message does not run, by what ``why.lua`` answered."""
    facts = Facts(raw_id, reply)
    if facts["result"] is not None and facts["reason"] is None:  # that of a dead letter says no more than the letter
        return _ended(facts)
    if facts["value"] is None:
        return _unknown(facts)
    try:
        _ = facts.names
    except DecodeError as error:
        return _dead(facts) or f"It cannot be read: {error}."
    for explain in (_dead, _running, _revoked, _scheduled, _paused, _handed_on, _unserved, _broken, _limited, _suspect):
        if text := explain(facts):
            return text
    return _in_turn(facts)


def pace(raw_id: bytes, before: Sequence[Any], after: Sequence[Any]) -> str:
    """Say how fast a message came nearer to its turn between two answers, and when it comes at that pace.

    As a range, since a few events say little of the next ones: two standard deviations, had they come by chance.
    Nothing for a message whose place is not known both times.
    """
    first, then = Facts(raw_id, before), Facts(raw_id, after)
    ahead, was = then["ahead"], first["ahead"]
    if ahead is None or was is None or first["place"] != then["place"]:
        return ""
    seconds, gone = (then.now - first.now) / 1000, was - ahead
    if gone <= 0:
        return f"In {span(seconds)} {'more came before it than went' if gone else 'none of those before it went'}."
    text = f"In {span(seconds)} {gone:,} of those before it went"
    if ahead == 0:
        return f"{text}, and it is the next."
    least, most = gone - 2 * math.sqrt(gone), gone + 2 * math.sqrt(gone)
    soonest = span(seconds * ahead / most)
    latest = f"to {span(seconds * ahead / least)}" if least > 0 else "or later"
    return f"{text}; at that pace its turn comes in {soonest} {latest}."


def unserved(raw_id: bytes, reply: Sequence[Any]) -> str | None:
    """Say that no live worker can run a message that waits in its queue, if that is so; by the same answer."""
    facts = Facts(raw_id, reply)
    try:
        return None if facts["served"] is None else _unserved(facts)
    except DecodeError:
        return None


# -- what has ended, and what runs ------------------------------------------------------------------------


def _unknown(facts: Facts) -> str:
    kept = f"results are kept for {span((facts.number('ttl') or 0) / 1000)}"
    text = f"No message and no result of id {id_to_text(facts.id)} exists"
    made = id_time(facts.id)
    if made is None:
        return f"{text}: it was never sent, or ended longer ago than {kept}."
    return f"{text}; its id was made {facts.since(made * 1000)} ago, and {kept}."


def _ended(facts: Facts) -> str:
    kind, payload = facts["result"][:1], facts["result"][1:]
    if kind == SUCCESS:
        return "It has ended: the task has returned."
    if kind == FAILURE:
        return f"It has failed: {_error(payload)}."
    word, _, why = payload.decode(errors="replace").partition("\n")
    if kind == DISCARDED:
        return f"It was {word if word == 'revoked' else f'discarded, {word}'}{f': {one_line(why)}' if why else ''}."
    return f"It was given up: {word}."


def _dead(facts: Facts) -> str | None:
    if facts["reason"] is None:
        return None
    word, _, detail = facts["reason"].partition(b"\n")
    error, died = _error(detail), facts.number("died")  # in a queue of which only its head could tell
    return (
        f"It is a dead letter{f' since {moment(died)}' if died else ''}, {word.decode(errors='replace')}"
        f"{f' ({error})' if error else ''}; to run it again: taskq dead replay {id_to_text(facts.id)}."
    )


def _running(facts: Facts) -> str | None:
    since = facts.number("since")
    if since is None:
        return None
    info = WorkerInfo.read(facts["worker"] or b"")
    child = "?" if info.child < 0 else info.child
    text = f"It runs in worker {info.worker}, child {child}, for {facts.since(since)}"
    lease = facts.number("lease") or 0.0
    if lease <= facts.now:
        text += f"; but that worker has given no sign of life, and its lease ended {facts.since(lease)} ago"
    if facts["revoked"] is not None:
        text += f"; it was revoked{_reason(facts.text('revoked'))} and is being stopped"
    return text + "."


def _revoked(facts: Facts) -> str | None:
    if facts["revoked"] is None:
        return None
    return f"It was revoked{_reason(facts.text('revoked'))} and ends when its turn comes."


# -- what waits -------------------------------------------------------------------------------------------


def _scheduled(facts: Facts) -> str | None:
    due = facts.number("due")
    if due is None:
        return None
    retries, most, error = (facts.headers.get(name) for name in ("retries", "of", "error"))
    if facts["crashes"] is not None:
        return f"It waits to run alone, since its process died {_times(facts)}; due {facts.until(due)}."
    if "unknown" in facts.headers:
        return f"It waits until {facts.until(due)} for a worker that knows task {facts.names[0]}: the last one did not."
    if times := facts.headers.get("postponed"):
        early = one_line(facts.headers.get("early") or "")
        text = f"It has postponed itself {count(times, 'time') if isinstance(times, int) else ''}"
        return f"{text}{f', for {early}' if early else ''}; due {facts.until(due)}."
    if not retries:
        return f"It is scheduled for {facts.until(due)}."
    number = f"retry {retries}{f' of {most}' if most is not None else ''}"
    return f"It waits for {number}, due {facts.until(due)}{f', after {one_line(error)}' if error else ''}."


def _paused(facts: Facts) -> str | None:
    pause = facts.pause
    if pause is None:
        return None
    task, queue = facts.names
    what = f"Queue {queue}" if facts["paused"] else f"Task {task}"
    until = f", until {facts.until(pause.until * 1000)}" if pause.until else ", until it is resumed"
    return (
        f"{what} was paused {facts.since(pause.since * 1000)} ago by {one_line(pause.author)}"
        f"{until}{_reason(pause.reason)}."
    )


def _handed_on(facts: Facts) -> str | None:
    if not facts.text("place").endswith("#t"):
        return None
    task, queue = facts.names
    if not facts["lanes"]:
        return f"No live worker has task {task}; those that serve queue {queue} do not know it."
    place = _place(facts)
    return f"It waits for children that run task {task}{f'; it is {place}' if place else ''}."


def _unserved(facts: Facts) -> str | None:
    task, queue = facts.names
    if not facts["served"]:
        return f"No live worker serves queue {queue}; start one: taskq worker -A ... -Q {queue}."
    workers = [WorkerInfo.read(info) for info in facts["workers"] or ()]
    able = [info for info in workers if queue in info.queues]
    if len(workers) < min(_FEW, facts["incarnations"]) or facts["incarnations"] > _FEW or not able:
        return None  # not all of them were looked at, or they are about to be replaced
    if any(task in info.tasks for info in able):
        return None
    return f"No live worker has task {task}; those that serve queue {queue} do not know it."


def _broken(facts: Facts) -> str | None:
    gate = next((gate for gate in facts.gates if gate.name.endswith("#b") and gate.closed), None)
    if gate is None:
        return None
    task = gate.name.removesuffix("#b")
    if gate.opens is None:
        return f"The breaker of task {task} has let one message through, and waits for what becomes of it."
    return (
        f"The breaker of task {task} is open, since it kept failing; it lets one through at {facts.until(gate.opens)}."
    )


def _limited(facts: Facts) -> str | None:
    gate = next((gate for gate in facts.gates if not gate.name.endswith("#b")), None)
    if gate is None:
        return None
    text = f"It is held up by {gate.limit}"
    if gate.slots and gate.used >= gate.slots:
        text += f": {'the only one is' if gate.slots == 1 else f'all {gate.slots} are'} in use"
        if gate.holders:
            named = [id_to_text(holder) for holder in gate.holders]
            text += ", by " + ", ".join([*named, *(["..."] if gate.used > len(named) else [])])
    elif gate.opens is not None:
        text += f": the next may start at {facts.until(gate.opens)}"
    place = _place(facts)
    return f"{text}; it is {place}." if place else f"{text}."


def _suspect(facts: Facts) -> str | None:
    if facts["place"] != b"suspects":
        return None
    why = f"its process died {_times(facts)}" if facts["crashes"] else "a process died while it may have been running"
    place = _place(facts)
    return f"It waits to run alone, since {why}{f'; it is {place}' if place else ''}."


def _in_turn(facts: Facts) -> str:
    queue, place = facts.names[1], _place(facts)
    if not place:
        return f"It waits in queue {queue}."
    ranks = decode_fields(facts["value"]) if facts["place"] == b"ranked" else {}
    how = (
        ", by its priority"
        if FIELD_PRIORITY in ranks
        else ", where each key has its turn"
        if FIELD_FAIR in ranks
        else ""
    )
    return f"It is {place} in queue {queue}{how}."


def _place(facts: Facts) -> str:
    ahead, of = facts["ahead"], facts["of"] or 0
    if ahead is not None:
        return f"number {ahead + 1:,} of {of:,}"
    return f"behind more than {_MOST:,} others of {of:,}" if of > _MOST else ""


# -- words ------------------------------------------------------------------------------------------------


def _error(detail: bytes) -> str:
    known = read_error_detail(detail)
    return one_line(": ".join(str(part) for part in (known["type"], known["message"]) if part))


def _reason(text: str) -> str:
    return f": {one_line(text)}" if text else ""


def _times(facts: Facts) -> str:
    crashes = int(facts["crashes"])
    return "once" if crashes == 1 else f"{crashes} times"
