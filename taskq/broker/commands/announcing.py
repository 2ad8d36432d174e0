"""What processes say of themselves: their app, its settings and limits, their name, the tasks they run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from taskq.broker.call import Arg, Command, as_dict, as_it_is, readable
from taskq.broker.keys import APPS, Keys
from taskq.broker.queue_set import QueueSet
from taskq.broker.scripts import script


def enlist(keys: Keys, lanes: Iterable[QueueSet], homes: Mapping[str, str] | None = None) -> Command[Any]:
    """Say which tasks the lanes of a worker run, and which queue each task has."""
    text = "\n".join(f"{lane.id} {''.join(f'{task} ' for task in lane.tasks)}" for lane in lanes)
    return Command(
        script("enlist"), [keys.prefix, text, *(word for pair in (homes or {}).items() for word in pair)], as_it_is
    )


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


def publish_tasks(
    keys: Keys,
    tasks: Iterable[tuple[str, str, str]],
    settings: Mapping[str, int | None] | None = None,
    since: int | None = None,
) -> Command[Published]:
    """Publish tasks, each with its queue and its limits (as ``gates.lua`` reads them), and settings (None: not set)."""
    words = " ".join(f"{name}={'' if value is None else value}" for name, value in (settings or {}).items())
    args: list[Arg] = [keys.prefix, b"" if since is None else since, words, *(word for task in tasks for word in task)]
    return Command(script("publish_tasks"), args, lambda reply: Published(int(reply[0]), reply[1], reply[2]))


def known_apps() -> Command[list[str]]:
    """Names of the apps on this server."""
    return Command(None, [b"SMEMBERS", APPS], lambda reply: sorted(map(readable, reply)))


def announce_app(keys: Keys) -> Command[Any]:
    """Add the app to the list of apps."""
    return Command(None, [b"SADD", APPS, keys.app], as_it_is)


def read_settings(keys: Keys) -> Command[dict[bytes, bytes]]:
    """The settings that `publish_tasks` published."""
    return Command(None, [b"HGETALL", keys["settings"]], as_dict)


def claim_name(keys: Keys, name: str, token: str, seconds: float) -> Command[str]:
    """Say that a worker has this name; answers the token of the one that said so last, if that is not long ago."""
    words: list[Arg] = [b"SET", keys["name:" + name], token, b"PX", int(seconds * 1000), b"GET"]
    return Command(None, words, lambda reply: readable(reply or b""))


def refuse_results(keys: Keys, seconds: float) -> Command[Any]:
    """Let no results be kept for a while; those who wait get theirs."""
    return Command(None, [b"SET", keys["scarce"], b"1", b"PX", int(seconds * 1000)], as_it_is)
