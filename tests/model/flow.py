"""What must be true of gates, lines and locks at any instant: part of `tests.model.audit`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from taskq.message.head import decode_head
from taskq.message.letters import FLAG_EXPIRES, FLAG_MORE

if TYPE_CHECKING:
    from tests.model.audit import Snapshot


def gates(snap: Snapshot) -> list[str]:
    """Slots are those of what is held, lines are known at their gates, and what waits at an open gate is announced."""
    passed, wrong = snap.passed(), []
    slots = {name.decode(): int(n) for name, n in snap.table("slots").items()}
    if slots != {name: n for name, n in passed.items() if not name.endswith("#b") and name[0] != "*"}:
        wrong.append(f"slots {slots} of what is held: {passed}")
    waiting = {
        (who.decode(), gate.decode()) for gate, waiters in snap.table("gates").items() for who in waiters.split()
    }
    lines = {(who, name) for who, name in waiting if who[0] not in "*!" and name[0] != "~"}
    if lines != set(snap.lines()):
        wrong.append(f"lines {set(snap.lines())}, at gates are {waiting}")
    in_groups = {(queue, line) for queue, _, line in heads(snap)}
    wrong += [
        f"{line} of {queue} is in a group nobody knows"
        for queue, group, line in heads(snap)
        if (queue, group) not in waiting
    ]
    for who, gate in waiting:
        line, queue, sets = f"{who}|{gate}".encode(), who.lstrip("*!"), sets_of(snap, who)
        if gate.endswith("#t") and sets:  # else whoever serves the queue next is told of it
            anybody = any(line in snap.table("ready:" + name) for name in sets)
            sets = lanes_of(snap, who, gate.removesuffix("#t"))
            if any(opens_by_itself(snap, name) for name in gates_behind(snap, who, gate)):
                continue
            if not (sets or anybody or gate.encode() in snap.table("openings")):
                wrong.append(f"nobody runs what waits in {line!r}, and nobody is going to look at it")
        elif (who, gate) in in_groups or any(opens_by_itself(snap, name) for name in gates_behind(snap, who, gate)):
            continue
        if who[0] in "*!":
            wrong.append(f"{who} waits at {gate}, which is open")
        elif queue.encode() in snap.table("paused") and gate.encode() in snap.table("lines:" + queue):
            continue
        elif not is_told(snap, who, gate, sets) and not all_elsewhere(snap, who, gate, sets):
            wrong.append(f"the line {line!r} at an open gate is not announced")
    return wrong


def heads(snap: Snapshot) -> list[tuple[str, str, str]]:
    """The lines that wait as groups: queue, group, line; of lines that are."""
    lines = snap.lines()
    names = ((*name.split("|", 1), line.decode()) for name, some in snap.under("heads").items() for line in some)
    return [(queue, group, line) for queue, group, line in names if (queue, line) in lines]


def is_told(snap: Snapshot, queue: str, line: str, sets: list[str]) -> bool:
    """Whether all who serve a line have been told of it."""
    return all(f"{queue}|{line}".encode() in snap.table("ready:" + name) for name in sets)


def all_elsewhere(snap: Snapshot, queue: str, group: str, sets: list[str]) -> bool:
    """Whether what is in a group, since its limits were replaced, is in another one too, or told by its own name."""
    groups: dict[str, set[str]] = {}
    for of, name, line in heads(snap):
        if of == queue:
            groups.setdefault(line, set()).add(name)
    inside = [line for line, names in groups.items() if group in names]
    return bool(inside) and all(len(groups[line]) > 1 or is_told(snap, queue, line, sets) for line in inside)


def gates_behind(snap: Snapshot, who: str, name: str) -> list[str]:
    """The gates for which a line or a group of this name waits; of one that has been emptied, none."""
    if name.endswith("#t"):  # whatever the first of it waits for
        known = {*snap.table("slots"), *snap.table("openings"), *snap.table("breakers"), *snap.table("paused")}
        task = name.removesuffix("t")
        return [gate for gate in map(bytes.decode, known) if gate.startswith(task)] + [task + "p", task + "b"]
    if name[0] != "~":
        return name.split("|") if "=" in name else [name]
    task, _, key = name[1:].partition("#")
    if key:
        return [name[1:]]
    return [f"{task}#{which}" for which in (*"0pb", *range(1, 1 + len(limits_of(snap, task))))]


def sets_of(snap: Snapshot, queue: str) -> list[str]:
    """The sets of queues that serve a queue."""
    return snap.table("serving").get(queue.encode(), b"").decode().split()  # type: ignore[no-any-return]


def lanes_of(snap: Snapshot, queue: str, task: str) -> list[str]:
    """The sets of those lanes that run a task for certain, of workers that serve a queue, or where the task is now."""
    sets = sets_of(snap, queue)
    if not sets and f" {queue} ".encode() in snap.table("homes").get(task.encode(), b""):
        sets = sets_of(snap, snap.table("tasks").get(task.encode(), b"").decode())
    lanes = (snap.table("runs").get(name.encode(), b"").decode() for name in sets)
    return [line.split()[0] for lines in lanes for line in lines.splitlines() if f" {task} " in line]


def opens_by_itself(snap: Snapshot, gate: str) -> bool:
    """Whether something is to come that opens a gate: its time, a slot that is freed, a breaker's verdict, a resume."""
    task, _, which = gate.partition("#")
    if gate.encode() in snap.table("openings"):
        return True
    if which == "p":
        return bool({task.encode(), b"=" + task.encode()} & set(snap.table("paused")))
    if which == "b":
        return snap.table("breakers").get(task.encode(), b"c").startswith(b"h") and snap.passed()[gate] > 0
    limits = [limit for limit in limits_of(snap, task) if limit[0] not in "bB"]
    at = int(which.partition("=")[0]) - 1
    slots = limits[at][3] if 0 <= at < len(limits) else 0
    return 0 < slots <= int(snap.table("slots").get(gate.encode(), 0))


def limits_of(snap: Snapshot, task: str) -> list[tuple[str, float, int, int]]:
    """The limits in force of a task: kind, ms between two, burst, slots."""
    table = snap.table("limits")
    text = table.get(b"!" + task.encode(), table.get(task.encode(), b"")).decode()
    parts = (line.split() for line in text.splitlines())
    return [(kind, float(interval), int(burst), int(slots)) for kind, interval, burst, slots in parts]


def over_limit(snap: Snapshot) -> list[str]:
    """Gates through which more have passed than they have slots; right only just after their limit was lowered."""
    wrong = []
    for name, n in snap.table("slots").items():
        task, _, which = name.decode().partition("#")
        limits = [limit for limit in limits_of(snap, task) if limit[0] not in "bB"]
        most = limits[int(which.partition("=")[0]) - 1][3] if limits else 0
        if most and int(n) > most:
            wrong.append(f"{int(n)} at once through {name!r}, which has {most} slots")
    return wrong


def locks(snap: Snapshot) -> list[str]:
    """Work that is unique until it is done is one message at most."""
    holders: dict[bytes, list[bytes]] = {}
    over = {*snap.table("reasons"), *snap.table("revoked")}
    running = {id_ for held in snap.under("processing").values() for id_ in held}
    for id_, value in snap.table("messages").items():
        expires = decode_head(value)[3]
        if expires is not None and expires <= snap.now and id_ not in running:
            continue
        found = extras(value) if value[1] & FLAG_MORE else {}
        if found.get("u", b"").startswith(b"d0:") and "d" not in found and id_ not in over:
            holders.setdefault(found["u"], []).append(id_)
    return [f"{lock!r} is held by {ids}" for lock, ids in holders.items() if len(ids) > 1]


@lru_cache(10_000)
def extras(value: bytes) -> dict[str, bytes]:
    """What a head says beside its names, by letter."""
    end = decode_head(value)[4]
    at = 10 + 8 * (value[1] & FLAG_EXPIRES)
    at += 1 + value[at]
    at += 1 + value[at] + 2
    found = {}
    while at < end:
        found[chr(value[at])] = value[at + 2 : at + 2 + value[at + 1]]
        at += 2 + value[at + 1]
    return found
