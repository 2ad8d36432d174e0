"""Whether a server can keep taskq's promises: its version, role, eviction policy and persistence."""

from __future__ import annotations

from taskq.broker import commands
from taskq.broker.pool import Broker
from taskq.errors import BrokerUnavailable, ServerUnsuitable

_OLDEST = (6, 2)


def check_server(broker: Broker) -> list[str]:
    """Look at the server once; returns warnings.

    Raises:
        ServerUnsuitable: Too old.
        BrokerUnavailable: No answer, or not yet: it is loading, or a replica, which a failover may promote.
    """
    info = _parse(broker.run(commands.server_info(), seconds=2.0))
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _OLDEST:
        raise ServerUnsuitable(f"{broker.where} is {name} {version}; taskq needs Redis 6.2 or later, or any Valkey")
    if info.get("role") == "slave":
        broker.close()  # the next look may find another server behind the same name
        raise BrokerUnavailable(f"{broker.where} is a read-only replica; it must be promoted, or the primary named")
    if info.get("loading") == "1":
        raise BrokerUnavailable(f"{broker.where} is loading its data")
    warnings = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and info.get("maxmemory", "0") != "0":
        warnings.append(
            f"maxmemory-policy is {policy}: when memory is full the server will delete messages. Set it to noeviction"
        )
    if info.get("aof_enabled") == "0":
        warnings.append("the append-only file is off: what the server holds is lost when it stops. Set appendonly yes")
    return warnings


def _parse(info: object) -> dict[str, str]:
    text = info.decode(errors="replace") if isinstance(info, bytes) else str(info)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))
