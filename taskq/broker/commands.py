"""What can be asked of the server, as values: a script or a plain command, its arguments, how to read the reply.

Pure: nothing here does I/O, so the sync and the async connection execute the very same commands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from taskq.broker.keys import APPS, Keys
from taskq.broker.scripts import Script, script
from taskq.broker.ticks import DueTick, Step

T_co = TypeVar("T_co", covariant=True)
Arg = bytes | str | int


@dataclass(frozen=True, slots=True)
class Command(Generic[T_co]):
    """One call of the server.

    Attributes:
        script: The script to run, or None for a plain command.
        args: The script's KEYS[1] and ARGV, or the plain command's words.
        parse: Turns the reply into its value.
        repeatable: Whether sending it twice is as good as once, so that an unknown outcome may be repeated.
        block: Seconds the server may take on purpose before it answers.
        bell: A list to wait on for ``block`` seconds before the script runs. Both are sent in one write, so the script
            runs the moment the bell rings, without another round trip.
        within: Seconds to wait for the answer in all, where somebody waits for less than a connection would.
    """

    script: Script | None
    args: Sequence[Arg]
    parse: Callable[[Any], T_co]
    repeatable: bool = True
    block: float = 0.0
    bell: bytes | None = None
    within: float | None = None


def _same(reply: Any) -> Any:
    return reply


def readable(stored: bytes) -> str:
    """Return a stored name: anybody may have written it, so what is no text is shown in escapes, not an error."""
    return stored.decode(errors="backslashreplace")


def block_word(seconds: float) -> str:
    """Write how long a server may block: never 0, which is for ever, nor what Redis 6.2 rounds to that (0.001)."""
    return f"{max(seconds, 0.01):.3f}"


# -- producers --------------------------------------------------------------------------------------------


def enqueue(keys: Keys, producer: bytes, number: int, messages: Sequence[tuple[bytes, bytes, bytes]]) -> Command[bytes]:
    """Accept messages, each an id, a value and options; answers a character a message (see ``enqueue.lua``)."""
    args: list[Arg] = [keys.prefix, producer, number]
    for message in messages:
        args.extend(message)
    return Command(script("enqueue"), args, _same)


# -- incarnations -----------------------------------------------------------------------------------------


class Lost(Exception):
    """The incarnation is not registered (any more): what it held belongs to others."""


class Stale(Exception):
    """The call number was not higher than the last one: the call changed nothing."""


def _owned(reply: Any) -> Any:
    """Check an answer to a call of an incarnation."""
    if reply[0] == b"lost":
        raise Lost
    if reply[0] == b"stale":
        raise Stale
    return reply


@dataclass(slots=True)
class Batch:
    """What a fetch brought.

    Attributes:
        now: Server time in ms.
        fenced: Outcomes refused because another owned the message by then.
        crashes: Counted deaths of the message, if it is a suspect.
        messages: Id and value in turn.
    """

    now: int
    fenced: int
    crashes: int
    messages: list[bytes]


def _batch(reply: Any) -> Batch:
    _owned(reply)
    return Batch(int(reply[0]), reply[1], reply[2], reply[3:])


def register(
    keys: Keys, incarnation: str, lease_ms: int, info: bytes, queues: QueueSet, announced: int | None = None
) -> Command[bool]:
    """Make an incarnation known, and the queues it serves; answers False while the announcement is not in force."""
    args: list[Arg] = [keys.prefix, incarnation, lease_ms, info, queues.id, queues.joined]
    return Command(script("register"), [*args, b"" if announced is None else announced], bool)


def enlist(keys: Keys, lanes: Iterable[QueueSet], homes: Mapping[str, str] | None = None) -> Command[Any]:
    """Say which tasks the lanes of a worker run, and which queue each task has."""
    text = "\n".join(f"{lane.id} {''.join(f'{task} ' for task in lane.tasks)}" for lane in lanes)
    return Command(
        script("enlist"), [keys.prefix, text, *(word for pair in (homes or {}).items() for word in pair)], _same
    )


@dataclass(frozen=True, slots=True)
class Stray:
    """A queue that nobody serves.

    Attributes:
        queue: Its name.
        waiting: Messages that go on waiting there.
        task: The task of the first of them.
        handed_on: How many went to workers that know their task under another queue.
        given_up: How many are dead letters now, since no live worker knows their task.
    """

    queue: str
    waiting: int
    task: str
    handed_on: int
    given_up: int


def adopt(keys: Keys, unknown_after_ms: int, detail: bytes, queues: Iterable[str]) -> Command[list[Stray]]:
    """Look at queues that nobody may serve."""

    def parse(reply: Any) -> list[Stray]:
        rows = (reply[i : i + 5] for i in range(0, len(reply), 5))
        return [Stray(row[0].decode(), row[1], row[2].decode(), row[3], row[4]) for row in rows]

    return Command(script("adopt"), [keys.prefix, unknown_after_ms, detail, *queues], parse)


def served_queues(keys: Keys) -> Command[set[str]]:
    """Names of the queues that live workers serve."""
    return Command(None, [b"HKEYS", keys["serving"]], lambda reply: {name.decode(errors="replace") for name in reply})


def fetch(
    keys: Keys,
    incarnation: str,
    number: int,
    outcomes: Iterable[Arg],
    *,
    want: int = 0,
    set_id: str = "",
    mode: str = "",
    caps: str = "",
    order: str = "",
    wait: float = 0.0,
) -> Command[Batch]:
    """Settle ``outcomes`` (groups as ``fetch.lua`` lists them) and take up to ``want`` messages.

    With ``wait``, first wait that many seconds at most for the set's bell. Whatever it says, the fetch follows.
    """
    args = [keys.prefix, incarnation, number, want, set_id, mode, caps, order, *outcomes]
    bell = keys["bell:" + set_id] if wait else None
    return Command(script("fetch"), args, _batch, repeatable=False, block=wait, bell=bell)


def sync(keys: Keys, incarnation: str, number: int, lost: int, known: Iterable[bytes]) -> Command[Any]:
    """Settle what is whose after call ``lost``; answers whether it was executed, and ids not held after all."""
    return Command(
        script("sync"),
        [keys.prefix, incarnation, number, lost, *known],
        lambda reply: (bool(_owned(reply)[0]), reply[1:]),
        repeatable=False,
    )


def wait_bell(keys: Keys, names: Sequence[str], seconds: float) -> Command[Any]:
    """Wait until one of the bells rings, at most ``seconds``; answers None in vain."""
    words: list[Arg] = [b"BLPOP", *(keys[name] for name in names), block_word(seconds)]
    return Command(None, words, _same, block=seconds)


def take_bell(keys: Keys, name: str) -> Command[Any]:
    """Take the token of a bell, if it has one; answers None in vain."""
    return Command(None, [b"LPOP", keys[name]], _same)


def held_ids(keys: Keys, incarnation: str) -> Command[list[bytes]]:
    """Ids an incarnation holds."""
    return Command(None, [b"HKEYS", keys["processing:" + incarnation]], _same)


@dataclass(slots=True)
class Renewal:
    """What a renewal told.

    Attributes:
        next_end: Seconds until the caller is to look for ended leases.
        suspects: Whether suspects wait.
        lost: Incarnations that are lost.
        revoked: Incarnations with the id of a revoked message that they hold.
        unannounced: Whether the server has lost what the worker announced.
        unknown: Incarnations of which the server does not know what they are.
        healed: What was missing and was put back, for people.
    """

    next_end: float
    suspects: bool
    lost: set[str]
    revoked: list[tuple[str, bytes]] = field(default_factory=list)
    unannounced: bool = False
    unknown: set[str] = field(default_factory=set)
    healed: list[str] = field(default_factory=list)


def _renewal(reply: Any) -> Renewal:
    next_ms, suspects, revoked, unannounced, unknown, healed, *lost = reply
    held = [(inc.decode(), raw_id) for inc, raw_id in zip(revoked[::2], revoked[1::2], strict=True)]
    return Renewal(
        int(next_ms) / 1000, bool(suspects), {inc.decode() for inc in lost}, held,
        bool(unannounced), {inc.decode() for inc in unknown}, [readable(what) for what in healed],
    )  # fmt: skip


def renew(
    keys: Keys,
    lease_ms: int,
    sets: Iterable[QueueSet],
    incarnations: Iterable[str],
    announced: int | None = None,
    infos: Mapping[str, bytes] | None = None,
) -> Command[Renewal]:
    """Renew leases; ``infos`` says again what some of the incarnations are."""
    lines = "\n".join(f"{queues.id} {queues.joined}" for queues in sets)
    args: list[Arg] = [keys.prefix, lease_ms, lines, b"" if announced is None else announced]
    for incarnation in incarnations:
        args += [incarnation, (infos or {}).get(incarnation, b"")]
    return Command(script("renew"), args, _renewal)


@dataclass(frozen=True, slots=True)
class Move:
    """A message given back: ``place`` is queue, suspect, scheduled, dead, dangling, revoked; held in a dry run."""

    id: bytes
    queue: str
    place: str


def _moves(flat: Sequence[bytes]) -> list[Move]:
    return [Move(flat[i], readable(flat[i + 1]), flat[i + 2].decode()) for i in range(0, len(flat), 3)]


def close(
    keys: Keys, incarnation: str, *, died: bool, alone: bool, running: Iterable[bytes], cause: bytes = b""
) -> Command[list[Move]]:
    """End an incarnation whose process is gone or going; ``cause`` is kept with messages given up for it.

    One that holds thousands is ended in pieces: to be repeated until there are no more moves.
    """
    how = "died" if died else "stopped"
    return Command(script("close"), [keys.prefix, incarnation, how, int(alone), cause, *running], _moves)


def close_lost(keys: Keys, incarnation: str) -> Command[list[Move]]:
    """End an incarnation of which nobody knows what ran, as a reaper does; in pieces like `close`."""
    return Command(script("close"), [keys.prefix, incarnation, b"lost", 0, b""], _moves)


# -- reaping and promotion --------------------------------------------------------------------------------


@dataclass(slots=True)
class Reaping:
    """What a reaping did.

    Attributes:
        next_end: Seconds until the caller is to come again; None: there is no lease.
        moves: The moves of its messages, by incarnation.
        unfinished: Incarnations of which there is more, for another call.
        failed: Incarnations that cannot be recovered, and why.
    """

    next_end: float | None
    moves: dict[str, list[Move]]
    unfinished: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)


def _reaping(reply: Any) -> Reaping:
    next_ms, at = int(reply[0]), 1
    reaping = Reaping(None if next_ms < 0 else next_ms / 1000, {})
    while at < len(reply):
        inc, n = readable(reply[at]), reply[at + 1]
        at += 2
        if isinstance(n, bytes):
            reaping.failed[inc] = readable(n)
            continue
        if n < 0:
            reaping.unfinished.add(inc)
        reaping.moves[inc] = _moves(reply[at : at + 3 * abs(n)])
        at += 3 * abs(n)
    return reaping


def reap(keys: Keys, limit: int, *, dry_run: bool = False) -> Command[Reaping]:
    """Recover what incarnations with an ended lease held."""
    return Command(script("reap"), [keys.prefix, limit, int(dry_run)], _reaping)


@dataclass(slots=True)
class Promotion:
    """What a promotion did and found.

    Attributes:
        moved: Messages that went to their queues.
        wait: Seconds until the caller should come again; None: need not.
        now: Server time in ms.
        ticks: Ticks of periodic entries that are due.
        more: Whether more of them may be due.
    """

    moved: int
    wait: float | None
    now: float
    ticks: list[DueTick]
    more: bool = False


def _promotion(reply: Any) -> Promotion:
    moved, wait_ms, now, more, *found = reply
    ticks = [
        DueTick(readable(found[i]), found[i + 1], int(found[i + 2]) if found[i + 2].isdigit() else None, found[i + 3])
        for i in range(0, len(found), 4)
    ]
    return Promotion(moved, None if int(wait_ms) < 0 else int(wait_ms) / 1000, float(now), ticks, bool(more))


def promote(keys: Keys, who: str, limit: int, keep_ms: int, skip: int = 0) -> Command[Promotion]:
    """Move what is due, and name the ticks that are, but for the first ``skip``."""
    return Command(script("promote"), [keys.prefix, who, limit, keep_ms, skip], _promotion)


# -- periodic entries -------------------------------------------------------------------------------------


def take_ticks(keys: Keys, steps: Iterable[Step]) -> Command[bytes]:
    """Send due ticks and set the next ones; answers a character a step (see ``tick.lua``)."""
    args: list[Arg] = [keys.prefix]
    for step in steps:
        args += [step.due.name, step.due.revision, step.due.due]
        args += step.message or (b"", b"", b"")
        args += [int(step.alone), b"" if step.tick is None else step.tick, *(step.follows or (b"", b""))]
        args.append(int(step.dropped))
    return Command(script("tick"), args, _same)


def declare(
    keys: Keys, source: str, revision: str, entries: Mapping[str, bytes], *, force: bool, announced: int | None = None
) -> Command[Declared]:
    """Put the entries of some code in place if it is new, or by ``force``, and what was lost of them."""
    args: list[Arg] = [keys.prefix, source, revision, int(force), b"" if announced is None else announced]
    return Command(script("declare"), [*args, *(word for pair in entries.items() for word in pair)], _declared)


@dataclass(frozen=True, slots=True)
class Declared:
    """What came of a declaration.

    Attributes:
        code: Whether it was ``new``, the ``same`` as the newest, or ``old``.
        entries: By name what changed, or would have: ``added``, ``replaced``, ``removed``; and what is ``restored``.
    """

    code: str
    entries: dict[str, str]


def _declared(reply: Any) -> Declared:
    code, *words = map(readable, reply)
    return Declared(code, dict(zip(words[::2], words[1::2], strict=True)))


def change_entry(keys: Keys, verb: str, name: str, *more: Arg) -> Command[str]:
    """Define, remove, pause or resume a periodic entry; answers what became of it (see ``entry.lua``)."""
    return Command(script("entry"), [keys.prefix, verb, name, *more], bytes.decode)


def read_hash(keys: Keys, name: str) -> Command[dict[bytes, bytes]]:
    """A whole hash."""
    return Command(None, [b"HGETALL", keys[name]], _as_dict)


def ticks_due(keys: Keys) -> Command[dict[str, float]]:
    """When each entry's next tick is due, in seconds since the epoch; entries that wait for none are left out."""

    def parse(reply: Any) -> dict[str, float]:
        pairs = reply if not reply or isinstance(reply[0], list) else zip(reply[::2], reply[1::2], strict=True)
        return {readable(name): float(score) / 1000 for name, score in pairs}

    return Command(None, [b"ZRANGE", keys["ticks"], 0, -1, b"WITHSCORES"], parse)


def retire(keys: Keys, limit: int, queues: Iterable[str]) -> Command[int]:
    """Purge dead letters past their time."""
    return Command(script("retire"), [keys.prefix, limit, *queues], int)


# -- the audit --------------------------------------------------------------------------------------------


def audit(keys: Keys, every_ms: int) -> Command[bool]:
    """Whether it is the caller's turn to audit, which it is if nobody else's was less than ``every_ms`` ago."""
    return Command(script("audit"), [keys.prefix, every_ms], bool)


@dataclass(slots=True)
class Tally:
    """What a look at the conservation law found: messages, ids in places, and keys in which those of queues stand."""

    messages: int
    placed: int
    names: list[str]


def tally(keys: Keys, queues: Iterable[str]) -> Command[Tally]:
    """Compare what there is with where it is."""

    def parse(reply: Any) -> Tally:
        return Tally(reply[0], reply[1], [readable(name) for name in reply[2:]])

    return Command(script("tally"), [keys.prefix, *queues], parse)


def ledger(keys: Keys, missing: Mapping[str, int]) -> Command[int]:
    """Put the ledger right; ``missing`` has what is nowhere, of queues that do not balance. Answers how much was."""
    words: list[Arg] = [word for pair in missing.items() for word in pair]
    return Command(script("ledger"), [keys.prefix, *words], int, repeatable=False)


def _words(reply: Any) -> Counter[str]:
    """Of names and what was missing of each, in turn: what was, how often."""
    return Counter(word.decode() for word in reply[1::2])


def restore(keys: Keys, queues: Iterable[tuple[str, bool, str]]) -> Command[Counter[str]]:
    """Work out anew what is derived of queues: name, whether a task of it has limits, sets that serve it."""
    words: list[Arg] = [word for queue, limited, sets in queues for word in (queue, "1" if limited else "", sets)]
    return Command(script("restore"), [keys.prefix, *words], _words)


def reopen(keys: Keys, gates: Iterable[bytes]) -> Command[Counter[str]]:
    """Work out anew what is derived of gates, and (``=<name>``) of pauses."""
    return Command(script("reopen"), [keys.prefix, *gates], _words)


def recount(keys: Keys, gates: Iterable[bytes]) -> Command[int]:
    """Count the slots in use at gates by what is held; answers how many were wrong."""
    return Command(script("recount"), [keys.prefix, *gates], int)


def tidy(keys: Keys, name: str, fields: Iterable[bytes]) -> Command[int]:
    """Let go what is kept of messages that are gone; answers how much was."""
    return Command(script("tidy"), [keys.prefix, name, *fields], int)


def relock(keys: Keys, ids: Iterable[bytes]) -> Command[int]:
    """Give messages the locks that they ought to have; answers how many got one."""
    return Command(script("relock"), [keys.prefix, *ids], int)


def rouse(keys: Keys, entries: Iterable[str]) -> Command[int]:
    """Give periodic entries that are due at no time their next tick; answers how many got it."""
    return Command(script("rouse"), [keys.prefix, *entries], int)


def held_values(keys: Keys, incarnation: str) -> Command[list[bytes]]:
    """What an incarnation holds, without the ids."""
    return Command(None, [b"HVALS", keys["processing:" + incarnation]], _same)


def hash_length(keys: Keys, name: str) -> Command[int]:
    """How many fields a hash has."""
    return Command(None, [b"HLEN", keys[name]], int)


def scan_hash(keys: Keys, name: str, cursor: bytes, about: int) -> Command[tuple[bytes, dict[bytes, bytes]]]:
    """Some fields of a hash, and the cursor for more (``0`` at the end)."""
    words: list[Arg] = [b"HSCAN", keys[name], cursor, b"COUNT", about]
    return Command(None, words, lambda reply: (reply[0], _as_dict(reply[1])))


def scan_ids(keys: Keys, cursor: bytes, about: int) -> Command[tuple[bytes, list[bytes]]]:
    """Some of the ids there are, and the cursor for more (``0`` at the end)."""
    return Command(script("scan"), [keys.prefix, cursor, about], lambda reply: (reply[0], reply[1:]))


def list_length(keys: Keys, name: str) -> Command[int]:
    """How many ids a list has."""
    return Command(None, [b"LLEN", keys[name]], int)


def set_length(keys: Keys, name: str) -> Command[int]:
    """How many ids a sorted set has."""
    return Command(None, [b"ZCARD", keys[name]], int)


def ids_in_list(keys: Keys, name: str, start: int, stop: int) -> Command[list[bytes]]:
    """Ids of a list (``queue:<queue>``, ``suspects:<queue>``)."""
    return Command(None, [b"LRANGE", keys[name], start, stop], _same)


def ids_in_set(keys: Keys, name: str, start: int, stop: int) -> Command[list[bytes]]:
    """Ids of a sorted set (``schedule``, ``dead:<queue>``)."""
    return Command(None, [b"ZRANGE", keys[name], start, stop], _same)


def mend(keys: Keys, doubtful: Iterable[tuple[bytes, str]], *, many: bool = False) -> Command[list[str]]:
    """Put right what stands in no place, in several, or without a message; ids with the key where each was seen.

    Answers for as many as it has looked at, one at least; with ``many`` in all, each is looked for less widely.
    """
    args: list[Arg] = [keys.prefix, int(many)]
    for raw_id, seen in doubtful:
        args += [raw_id, seen]
    return Command(script("mend"), args, lambda reply: [word.decode() for word in reply])


def incarnations(keys: Keys) -> Command[list[str]]:
    """All incarnations that are registered."""
    return Command(None, [b"ZRANGE", keys["leases"], 0, -1], lambda reply: [readable(name) for name in reply])


# -- results ----------------------------------------------------------------------------------------------


def await_results(keys: Keys, inbox: str, ids: Sequence[bytes]) -> Command[list[Any]]:
    """Read results and leave word for those to come; answers as ``await.lua`` says."""
    return Command(script("await"), [keys.prefix, inbox, *ids], _same)


def take_inbox(keys: Keys, inbox: str, seconds: float) -> Command[list[bytes]]:
    """Wait for one result to come into the inbox."""
    words: list[Arg] = [b"BLPOP", keys["inbox:" + inbox], block_word(seconds)]
    return Command(None, words, lambda reply: reply[1:] if reply else [], repeatable=False, block=seconds)


def drain_inbox(keys: Keys, inbox: str) -> Command[list[bytes]]:
    """Take what else has come."""
    return Command(None, [b"LPOP", keys["inbox:" + inbox], 1000], lambda r: r or [], repeatable=False)


def locate(keys: Keys, raw_id: bytes) -> Command[list[Any]]:
    """Say where a message is; answers as ``locate.lua`` says."""
    return Command(script("locate"), [keys.prefix, raw_id], _same)


def why(keys: Keys, raw_id: bytes) -> Command[list[Any]]:
    """Ask why a message does not run; answers as ``why.lua`` says."""
    return Command(script("why"), [keys.prefix, raw_id], _same)


def forget(keys: Keys, raw_id: bytes) -> Command[int]:
    """Delete a result."""
    return Command(None, [b"DEL", keys["result:"] + raw_id], _same)


# -- dead letters and surveys -----------------------------------------------------------------------------


def dead_ids(keys: Keys, queue: str, start: int, stop: int) -> Command[list[tuple[bytes, float]]]:
    """Ids of dead letters of a queue, oldest first, with their time in seconds since the epoch."""

    def parse(reply: Any) -> list[tuple[bytes, float]]:
        pairs = reply if not reply or isinstance(reply[0], list) else zip(reply[::2], reply[1::2], strict=True)
        return [(raw_id, float(score) / 1000) for raw_id, score in pairs]

    return Command(None, [b"ZRANGE", keys["dead:" + queue], start, stop, b"WITHSCORES"], parse)


def hash_values(keys: Keys, name: str, fields: Sequence[bytes]) -> Command[list[bytes | None]]:
    """Values of a hash."""
    return Command(None, [b"HMGET", keys[name], *fields], _same)


def whole_hash(keys: Keys, name: str) -> Command[dict[bytes, bytes]]:
    """All of a hash that grows with the number of queues and tasks only."""
    return Command(None, [b"HGETALL", keys[name]], _as_dict)


def dead_time(keys: Keys, queue: str, raw_id: bytes) -> Command[float | None]:
    """When a message became a dead letter of that queue, in seconds since the epoch; None if it is none of it."""
    return Command(None, [b"ZSCORE", keys["dead:" + queue], raw_id], lambda r: None if r is None else float(r) / 1000)


def replay(keys: Keys, queue: str, raw_id: bytes, value: bytes) -> Command[bool | None]:
    """Put a dead letter back into its queue; None if it is unique work that another message is by now."""
    return Command(script("replay"), [keys.prefix, queue, raw_id, value], {1: True, 0: False, -1: None}.__getitem__)


def purge(keys: Keys, queue: str, ids: Sequence[bytes]) -> Command[int]:
    """Delete dead letters."""
    return Command(script("purge"), [keys.prefix, queue, *ids], int)


@dataclass(frozen=True, slots=True)
class Pause:
    """Why nothing is taken from a queue: since when and until when (seconds since the epoch; None: until resumed)."""

    since: float
    until: float | None
    author: str
    reason: str


def read_pause(stored: bytes) -> Pause | None:
    """Read what ``pause.lua`` stored; None for nothing. What is not readable is a pause as well, of an unknown time."""
    if not stored:
        return None
    since, _, rest = readable(stored).partition(" ")
    until, _, text = rest.partition(" ")
    if not (since.isdecimal() and until.isdecimal()):
        return Pause(0.0, None, "?", readable(stored))
    author, _, reason = text.partition("\n")
    return Pause(int(since) / 1000, int(until) / 1000 or None, author, reason)


def pause(keys: Keys, name: str, seconds: float, author: str, reason: str) -> Command[bool]:
    """Let nothing more be taken of a queue or task, for ``seconds`` (0: until resumed); answers whether it was not."""
    return Command(script("pause"), [keys.prefix, name, round(seconds * 1000), f"{author}\n{reason}"], bool)


def resume(keys: Keys, name: str) -> Command[bool]:
    """Let messages of a queue or task be taken again; answers whether it was paused."""
    return Command(script("resume"), [keys.prefix, name], bool)


@dataclass(frozen=True, slots=True)
class Published:
    """What came of an announcement.

    Attributes:
        since: When it was made first, in ms by the server's clock; to be said with it from then on.
        opened: Gates that may have opened by it.
        changed: Settings and tasks that were otherwise, or missing.
    """

    since: int
    opened: int
    changed: int


def publish(
    keys: Keys,
    tasks: Iterable[tuple[str, str, str]],
    settings: Mapping[str, int | None] | None = None,
    since: int | None = None,
) -> Command[Published]:
    """Publish tasks, each with its queue and its limits (as ``gates.lua`` reads them), and settings (None: not set)."""
    words = " ".join(f"{name}={'' if value is None else value}" for name, value in (settings or {}).items())
    args: list[Arg] = [keys.prefix, b"" if since is None else since, words, *(word for task in tasks for word in task)]
    return Command(script("publish"), args, lambda reply: Published(int(reply[0]), reply[1], reply[2]))


def limit(keys: Keys, task: str, limits: str) -> Command[bool]:
    """Set the limits of a task by hand (``-``: those of its code); answers whether there is such a task."""
    return Command(script("limit"), [keys.prefix, task, limits], bool)


def revoke(keys: Keys, raw_id: bytes, why: str) -> Command[str]:
    """Let a message not run, or run no longer; answers as ``revoke.lua`` says."""
    return Command(script("revoke"), [keys.prefix, raw_id, why], lambda reply: reply.decode())


def mark(keys: Keys, ids: Sequence[bytes], why: str) -> Command[list[bytes]]:
    """Let none of up to 1000 messages be begun, before each is revoked; answers which are alive."""
    return Command(script("mark"), [keys.prefix, why, *ids], _same)


#: Counters of what has left for good; ``dangling`` is what lost its message to somebody's hand.
GONE = ("done", "failed", "discarded", "purged", "dangling")


@dataclass(slots=True)
class QueueSurvey:
    """Counters and places of one queue. ``counters`` has the ledger: accepted, done, failed, discarded, purged ..."""

    counters: dict[str, int]
    pending: int = 0
    suspects: int = 0
    dead: int = 0
    processing: int = 0
    paused: Pause | None = None

    @property
    def scheduled(self) -> int:
        """Messages waiting for their time."""
        return self.counters.get("scheduled", 0)

    @property
    def gated(self) -> int:
        """Messages waiting at a closed gate of a limit."""
        return self.counters.get("gated", 0)

    @property
    def balance(self) -> int:
        """Accepted messages that are in no place: 0 by the conservation law."""
        gone = sum(self.counters.get(name, 0) for name in GONE)
        here = self.scheduled + self.gated + self.pending + self.suspects + self.processing + self.dead
        return self.counters.get("accepted", 0) - gone - here


def _survey(reply: Any) -> dict[str, QueueSurvey]:
    counters, places, held = reply
    queues: dict[str, QueueSurvey] = {}
    for key, value in zip(counters[::2], counters[1::2], strict=True):
        queue, _, name = readable(key).rpartition("|")
        number = int(value) if value.lstrip(b"-").isdigit() else 0
        queues.setdefault(queue, QueueSurvey({})).counters[name] = number
    for at in range(0, len(places), 5):
        survey = queues.setdefault(readable(places[at]), QueueSurvey({}))
        survey.pending, survey.suspects, survey.dead = places[at + 1 : at + 4]
        survey.paused = read_pause(places[at + 4])
    for queue, n in zip(held[::2], held[1::2], strict=True):
        queues.setdefault(readable(queue), QueueSurvey({})).processing = n
    return queues


def survey(keys: Keys, queues: Iterable[str] = ()) -> Command[dict[str, QueueSurvey]]:
    """The ledger and the places of every queue, at one instant; also of ``queues`` that the ledger does not name."""
    return Command(script("survey"), [keys.prefix, *queues], _survey)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in queues that are not paused, and whether any of it can run.

    Attributes:
        pending: Messages that wait, suspects included.
        oldest: How long the oldest has, in seconds.
        suspects: How many of them run alone.
        ready: Lines from which something may be taken now.
        held: Messages that incarnations hold; -1 if one of them is not registered yet.
        opens: Seconds until a gate opens by itself where some wait; None if none does soon.
    """

    pending: int
    oldest: float
    suspects: int
    ready: int = 0
    held: int = 0
    opens: float | None = None

    @property
    def stuck(self) -> bool:
        """Whether nothing runs and nothing can, now or soon."""
        return not self.ready and self.held == 0 and self.opens is None


def backlog(
    keys: Keys, queues: Iterable[str], sets: Iterable[str] = (), incarnations: Iterable[str] = ()
) -> Command[Backlog]:
    """How much waits in some queues; for ``sets`` and ``incarnations`` also whether any of it can run."""
    return Command(script("backlog"), [keys.prefix, " ".join(sets), " ".join(incarnations), *queues], _backlog)


def _backlog(reply: Any) -> Backlog:
    pending, oldest, suspects, ready, held, opens = reply
    soon = None if int(opens) < 0 else int(opens) / 1000
    return Backlog(pending, int(oldest) / 1000, suspects, ready, held, soon)


def workers(keys: Keys) -> Command[dict[bytes, bytes]]:
    """What the live incarnations are (opaque, as registered)."""
    return Command(None, [b"HGETALL", keys["workers"]], _as_dict)


def _as_dict(reply: Any) -> dict[bytes, bytes]:
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def known_apps() -> Command[list[str]]:
    """Names of the apps on this server."""
    return Command(None, [b"SMEMBERS", APPS], lambda reply: sorted(map(readable, reply)))


def announce_app(keys: Keys) -> Command[Any]:
    """Add the app to the list of apps."""
    return Command(None, [b"SADD", APPS, keys.app], _same)


def read_settings(keys: Keys) -> Command[dict[bytes, bytes]]:
    """The settings that `publish` published."""
    return Command(None, [b"HGETALL", keys["settings"]], _as_dict)


def lease_ends(keys: Keys, incarnations: Sequence[str]) -> Command[list[float | None]]:
    """When the leases of incarnations end, in seconds since the epoch; None for one that is not registered."""
    words: list[Arg] = [b"ZMSCORE", keys["leases"], *incarnations]
    return Command(None, words, lambda reply: [None if end is None else float(end) / 1000 for end in reply])


def count_until(keys: Keys, name: str, until: float) -> Command[int]:
    """How many members of a sorted set (``schedule``, ``dead:<queue>``) have a time up to ``until`` (Unix seconds)."""
    return Command(None, [b"ZCOUNT", keys[name], b"-inf", int(until * 1000)], int)


def last_pulse(keys: Keys) -> Command[float]:
    """When leases were last renewed or looked after, in seconds since the epoch; 0 for never."""
    return Command(None, [b"GET", keys["pulse"]], lambda reply: float(reply or 0) / 1000)


def server_time() -> Command[float]:
    """The server's clock, in seconds since the epoch."""
    return Command(None, [b"TIME"], lambda reply: int(reply[0]) + int(reply[1]) / 1e6)


def claim_name(keys: Keys, name: str, token: str, seconds: float) -> Command[str]:
    """Say that a worker has this name; answers the token of the one that said so last, if that is not long ago."""
    words: list[Arg] = [b"SET", keys["name:" + name], token, b"PX", int(seconds * 1000), b"GET"]
    return Command(None, words, lambda reply: readable(reply or b""))


def refuse_results(keys: Keys, seconds: float) -> Command[Any]:
    """Let no results be kept for a while; those who wait get theirs."""
    return Command(None, [b"SET", keys["scarce"], b"1", b"PX", int(seconds * 1000)], _same)


def server_info() -> Command[Any]:
    """INFO, unparsed."""
    return Command(None, [b"INFO"], _same)


@dataclass(frozen=True, slots=True)
class QueueSet:
    """The queues one lane of a worker serves; the id is the same for every worker of the same lanes.

    Attributes:
        order: How they share the workers' time, as ``fetch.lua`` reads it.
        tasks: Names of the tasks that the lane runs, whatever queue they come by.
    """

    id: str
    queues: tuple[str, ...]
    order: str = ""
    tasks: tuple[str, ...] = ()

    @property
    def joined(self) -> str:
        """The names joined by spaces."""
        return " ".join(self.queues)

    @classmethod
    def of(
        cls,
        queues: Iterable[str],
        weights: Mapping[str, int] | None = None,
        strict: bool = False,
        tasks: Iterable[str] = (),
        beside: Iterable[str] = (),
    ) -> QueueSet:
        """Make the set of these queues, which share time alike; or by ``weights``, or the highest first.

        ``beside`` are the queues of all lanes of the worker, by which the lanes of different ones are told apart.
        """
        import hashlib

        names, runs = tuple(sorted(set(queues))), tuple(sorted(tasks))
        order = " " if len(names) > 1 else ""  # alike
        if weights and names:
            order = "!" * strict + "".join(f" {name}={weights.get(name, 1)}" for name in names) + " "
        text = "\n".join((" ".join(names) + order, " ".join(runs), " ".join(sorted(beside))))
        return cls(hashlib.blake2b(text.encode(), digest_size=6).hexdigest(), names, order, runs)
