"""Which apps there are on a server, and which of them are meant."""

from __future__ import annotations

from collections.abc import Iterable

from taskq.broker.commands import announcing
from taskq.broker.protocol import Protocol
from taskq.broker.topology import Topology, read_topology
from taskq.config import check_name
from taskq.errors import ConfigError
from taskq.views.names import unknown


def apps_at(where: str, names: Iterable[str], *, new: bool = False) -> Protocol[list[Topology]]:
    """Find the apps that are meant: those named, else all on the server; ``new`` ones need not be there yet.

    Raises:
        ConfigError: One that is named is not on the server, which errors call ``where``.
    """
    known: list[str] = yield announcing.known_apps()
    names = list(dict.fromkeys(names))
    for name in names:
        if check_name("app", name) not in known and not new:
            raise unknown("app", name, where, known)
    apps: list[Topology] = []
    for name in names or known:
        apps.append((yield from read_topology(name)))
    return apps


def app_at(where: str, name: str | None, *, new: bool = False) -> Protocol[Topology]:
    """Find the one app that is meant: the one named, else the only one on the server.

    Raises:
        ConfigError: There is none, or there are several.
    """
    apps = yield from apps_at(where, [name] if name else [], new=new)
    if len(apps) == 1:
        check_name("app", apps[0].app)
        return apps[0]
    several = f"several apps ({', '.join(one.app for one in apps)}): say which with --name"
    raise ConfigError(f"{where} has {several if apps else 'no app yet: name it with --name'}")
