"""A trace on the real server: each command as the model executed it, at the time the model's clock showed."""

from __future__ import annotations

from typing import Any

from redis.exceptions import ResponseError

from taskq.broker.call import Command
from taskq.broker.faults import refused
from taskq.broker.net.connection import Connection, pack
from tests.model.audit import SCRIPT, Snapshot
from tests.simulation.world import World
from tests.support import stopped

#: KEYS: the prefix; ARGV: names of keys. What expires does so when the trace says it, not by itself.
_KEEP = b"for _, name in ipairs(ARGV) do redis.call('PERSIST', KEYS[1] .. name) end"


def _words(command: Command[Any]) -> list[Any]:
    script = stopped(command).script
    return list(command.args) if script is None else [b"EVAL", script.text, 1, *command.args]


def _told(command: Command[Any], reply: Any) -> Any:
    """What matters of a reply: not the order of what has none."""
    if isinstance(reply, Exception):
        return str(refused(reply) if isinstance(reply, ResponseError) else reply)
    name = command.script.name if command.script else ""
    if name == "sync":
        return reply[:1], sorted(reply[1:])
    return command.parse(reply) if name == "survey" else reply


def differences(world: World, connection: Connection) -> list[str]:
    """Do all of a world's history again; says where the server and the model differ."""
    events = [event for event in world.trace if event.command is not None]
    prefix = world.keys.prefix
    packed = []
    for event in events:
        assert event.command is not None
        packed.append(pack([b"SET", world.keys["clock"], repr(event.server_ms)]))
        packed.append(pack(_words(event.command)))
        packed.append(pack([b"EVAL", _KEEP, 1, prefix, *world.passing]))
    packed.append(pack([b"EVAL", SCRIPT, 1, prefix, repr(events[-1].server_ms)]))
    raw = connection._raw
    raw.send_packed_command([b"".join(packed)], check_health=False)
    found = []
    for event in events:
        raw.read_response()
        try:
            reply = raw.read_response()
        except ResponseError as error:
            reply = error
        raw.read_response()
        assert event.command is not None
        told = _told(event.command, reply)
        if told != _told(event.command, event.reply):
            found.append(f"{event} on the model, {told!r} on the server")
    server, model = Snapshot.read(raw.read_response()), world.model.look()
    for name in sorted(server.content.keys() | model.content.keys()):
        ours, theirs = model.content.get(name), server.content.get(name)
        if ours != theirs:
            found.append(f"{name} is {ours!r} on the model, {theirs!r} on the server")
    return found
