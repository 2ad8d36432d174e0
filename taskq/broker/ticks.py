"""Due ticks of periodic entries and what is to become of them, as values that the scripts take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DueTick:
    """A tick that is due: of which entry, that entry as stored, the tick's time (ms; None: the entry is new), due (ms).

    An entry that is new, changed or resumed is due at once, for its first tick to be worked out.
    """

    name: str
    stored: bytes
    tick: int | None
    due: bytes

    @property
    def revision(self) -> bytes:
        """What tells this definition of the entry from others."""
        return self.stored[:16]


@dataclass(frozen=True, slots=True)
class Step:
    """What is to become of a due tick.

    Attributes:
        due: The tick, as it was when this was decided.
        message: What to send, if anything.
        tick: The time of the tick it stands for, in ms.
        follows: The next tick and when to send it, in ms; None if there is none.
        alone: Whether to send only if the entry's last message has ended.
        dropped: Whether ticks were left out, since they are too old.
    """

    due: DueTick
    message: tuple[bytes, bytes, bytes] | None
    tick: int | None
    follows: tuple[int, int] | None
    alone: bool = False
    dropped: bool = False
