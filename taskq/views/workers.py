"""What a worker tells the server of itself, and what others read there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from taskq.errors import DecodeError
from taskq.message import codec


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What an incarnation is: told once, when it registers.

    Attributes:
        worker: Name of the worker.
        host: Where it runs.
        pid: Of the process that runs the tasks.
        child: The number of that process in its worker; -1 if that is not known.
        format: The version of the messages that it writes.
        queues: What it takes from.
        tasks: The tasks that it has, with the fingerprints of their signatures.
    """

    worker: str = "?"
    host: str = "?"
    pid: int = 0
    child: int = -1
    format: int = 0
    queues: Sequence[str] = ()
    tasks: Mapping[str, bytes] = field(default_factory=dict)

    def stored(self) -> bytes:
        """Write it for the server."""
        return bytes(msgpack.packb({name: getattr(self, name) for name in self.__slots__}))

    @classmethod
    def read(cls, stored: bytes) -> WorkerInfo:
        """Read what a worker wrote, perhaps one of another version; what cannot be read is as if it were not said."""
        try:
            told = codec.read(stored) if stored else {}
        except DecodeError:
            told = {}
        given: Iterable[tuple[Any, Any]] = told.items() if isinstance(told, dict) else ()
        known: dict[str, Any] = {name: value for name, value in given if isinstance(value, _KINDS.get(name, ()))}
        return cls(**known)


_KINDS = {"worker": str, "host": str, "pid": int, "child": int, "format": int, "queues": list, "tasks": dict}
