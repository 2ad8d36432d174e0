"""Pausing: nothing more is taken from a queue, or of a task, until it is resumed. What runs goes on."""

from __future__ import annotations

from taskq.broker.commands import steering
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology
from taskq.config import check_name, whoami
from taskq.errors import ConfigError


def pause(partitions: Topology, name: str, reason: str = "", seconds: float = 0.0, author: str = "") -> Protocol[bool]:
    """Pause a queue or a task, for ``seconds`` (0: until it is resumed); this user does unless ``author`` is given.

    Answers False if it was paused before; the new reason and time hold.

    Raises:
        ConfigError: A name, or a number of seconds, that cannot be.
    """
    if isinstance(seconds, bool) or not 0 <= seconds < float("inf"):
        raise ConfigError(f"seconds must be a number from 0, not {seconds!r}")
    check_name("queue or task", name)
    first = True
    for keys in partitions.all:  # a call of a task may be in any of them
        first = (yield steering.pause(keys, name, seconds, author or whoami(), reason)) and first
    return first


def resume(partitions: Topology, name: str) -> Protocol[bool]:
    """Let messages of a queue or task be taken again; answers whether it was paused."""
    check_name("queue or task", name)
    was = False
    for keys in partitions.all:
        was = (yield steering.resume(keys, name)) or was
    return was
