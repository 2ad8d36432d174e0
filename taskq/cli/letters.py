"""How ``taskq dead`` shows dead letters.

What a message's maker wrote is shown, never trusted: what cannot be decoded is said to be so, control characters are
replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskq.cli.output import seconds
from taskq.cli.tables import Column, age, moment, one_line, printable, shortened
from taskq.message import codec
from taskq.spelling import count
from taskq.steering.letters import HISTORY
from taskq.views.letters import DEATHS, DeadLetter

COLUMNS = (
    Column("ID", whole=True),
    Column("APP", spare=True),
    Column("QUEUE", spare=True, like="TASK"),
    Column("TASK"),
    Column("REASON"),
    Column("AGE", number=True),
    Column("ERROR"),
)
#: Longest value shown, in characters; parts of an error's detail that have a place of their own.
_SHOWN_MAX, _SHOWN_APART = 4000, ("type", "message", "traceback", "retries")


def row(letter: DeadLetter, now: float) -> tuple[str, ...]:
    """Write one as a row of `COLUMNS`; ``now`` is the server's time in seconds since the epoch."""
    cells = (letter.text_id, letter.app, letter.queue, letter.task, letter.reason)
    return (*(one_line(cell) for cell in cells), age(now - letter.died), one_line(letter.error))


def document(letter: DeadLetter, now: float) -> dict[str, Any]:
    """Return what JSON says of one in a list."""
    return {
        "id": letter.text_id,
        "app": letter.app,
        "queue": letter.queue,
        "task": letter.task,
        "reason": letter.reason,
        "error": str(letter.detail["type"]),
        "message": str(letter.detail["message"]),
        "died_at": moment(letter.died),
        "age": seconds(now - letter.died),
    }


def whole(letter: DeadLetter, now: float) -> dict[str, Any]:
    """Return what JSON says of one that is shown: all that is known, what the message itself says as text."""
    more = {str(name): str(value) for name, value in letter.detail.items() if name not in _SHOWN_APART}
    deaths = [{"at": moment(when / 1000), "reason": why, "error": error} for when, why, error in letter.deaths]
    told = {name: shortened(str(value), _SHOWN_MAX) for name, value in _message_rows(letter, now)}
    return {
        **document(letter, now),
        "traceback": str(letter.detail["traceback"]),
        "detail": more,
        "deaths": deaths,
        "told": told,
    }


def describe(letter: DeadLetter, now: float) -> str:
    """Write all that is known of one."""
    rows = [
        ("id", letter.text_id),
        ("app", letter.app),
        ("queue", letter.queue),
        ("task", letter.task),
        ("reason", letter.reason),
        ("died", f"{moment(letter.died)}, {age(now - letter.died)} ago"),
        *_message_rows(letter, now),
        *(("died once", f"{moment(when / 1000)}, {why}: {error}") for when, why, error in letter.deaths),
        *((str(name), value) for name, value in letter.detail.items() if name not in _SHOWN_APART),
        ("error", letter.error),
    ]
    lines = [f"{name:<10}{printable(shortened(str(value), _SHOWN_MAX))}" for name, value in rows if value != ""]
    if traceback := str(letter.detail["traceback"]).rstrip():
        lines += ["", printable(traceback)]
    return "\n".join(lines)


def _message_rows(letter: DeadLetter, now: float) -> list[tuple[str, Any]]:
    """What the message itself says: when it was accepted, its retries, headers and arguments."""
    if letter.value is None:
        return [("message", "(gone)")]
    envelope = letter.envelope
    if envelope is None:
        return [("message", f"(cannot be decoded) {count(len(letter.value), 'byte')}: {letter.value!r}")]
    headers = dict(envelope.headers)
    rows: list[tuple[str, Any]] = [("accepted", moment(envelope.accepted / 1000))]
    if envelope.expires is not None:
        rows.append(("expires", moment(envelope.expires / 1000)))
    rows.append(("retries", headers.pop("retries", 0)))
    headers.pop("sig", None)
    user = headers.pop("user", None)
    if user is not None:
        rows.append(("headers", _decoded(codec.unpack, user)))
    rows += [(str(name), value) for name, value in headers.items() if name not in (*HISTORY, DEATHS)]
    try:
        args, kwargs = codec.unpack_call(envelope.body)
        rows += [("args", repr(tuple(args))), ("kwargs", repr(kwargs))]
    except Exception:
        rows.append(("body", f"(cannot be decoded) {count(len(envelope.body), 'byte')}: {envelope.body!r}"))
    return rows


def _decoded(read: Callable[[bytes], Any], data: Any) -> str:
    try:
        return repr(read(data))
    except Exception:
        return f"(cannot be decoded) {data!r}"
