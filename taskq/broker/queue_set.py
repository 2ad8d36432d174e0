"""The queues that a lane serves, and how they share its time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


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
