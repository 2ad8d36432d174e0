"""Shared memory in which each child notes what it runs, so that its parent can read it when the child has died.

A child has a region a lane::

    0   incarnation, 16 hexadecimal characters (zeros: none)
    16  end of its lease, by the boot-time clock, in seconds (written by the parent)
    24  index of the running message in the table, 255 for none; 254: every entry runs (loop lanes)
    25  1 when the child has shown its stacks (in its first lane)
    26  0 while the child takes messages, 1 when it takes no more, from 2 on when it holds none: 2 and its exit code
        (in its first lane)
    32  table: 16 bytes a message, zeros for none
    ..  deadlines: when each must have ended, by the same clock; 0 for no limit
    ..  revoked: messages that must not run (on), as in the table (written by the parent)

An id of 16 bytes stands in the table as it is, a longer one as its digest. Writing costs a store, not a system call.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Sequence
from multiprocessing.reduction import DupFd
from typing import Any

_DOUBLE = struct.Struct("<d")
_TABLE = 32
_IDLE, _ALL = 255, 254
_RETIRING, _LEFT = 1, 2
_EMPTY = bytes(16)

#: Messages a lane can hold at most.
CAPACITY = 128


def digest(raw_id: bytes) -> bytes:
    """Return the 16 bytes that stand for an id."""
    return raw_id if len(raw_id) == 16 else hashlib.blake2b(raw_id, digest_size=16).digest()


class Seat:
    """The region of one lane of one child.

    Attributes:
        memory: The shared memory; a lane stores the index of its running message at ``index_at``, once a message.
    """

    def __init__(self, memory: mmap.mmap, offset: int, capacity: int) -> None:
        """Look at ``memory`` from ``offset`` on."""
        self.memory = memory
        self._offset = offset
        self.index_at = offset + 24
        self._deadlines_at = offset + _TABLE + 16 * capacity
        self._revoked_at = self._deadlines_at + 8 * capacity
        self.capacity = capacity
        self._free = list(range(capacity - 1, -1, -1))

    def clear(self) -> None:
        """Forget everything (before a new child uses the region)."""
        size = region_size(self.capacity)
        self.memory[self._offset : self._offset + size] = bytes(size)
        self.memory[self.index_at] = _IDLE

    # -- the child writes ---------------------------------------------------------------------------------

    def begin(self, incarnation: str, lease_until: float) -> None:
        """Say which incarnation the lane is, and until when it may start anything."""
        self.memory[self._offset : self._offset + 16] = incarnation.encode()
        _DOUBLE.pack_into(self.memory, self._offset + 16, lease_until)

    def load(self, raw_ids: Sequence[bytes]) -> None:
        """Put a batch into the table; none of it runs yet."""
        start = self._offset + _TABLE
        plain = max(map(len, raw_ids)) == min(map(len, raw_ids)) == 16
        table = b"".join(raw_ids if plain else map(digest, raw_ids))
        self.memory[start : start + len(table)] = table

    def idle(self) -> None:
        """Say that nothing runs."""
        self.memory[self.index_at] = _IDLE

    def enter(self, raw_id: bytes) -> int:
        """Say that one more message runs (loop lane); returns its index in the table."""
        index = self._free.pop()
        start = self._offset + _TABLE + 16 * index
        self.memory[start : start + 16] = digest(raw_id)
        self.memory[self.index_at] = _ALL
        return index

    def leave(self, index: int) -> None:
        """Say that the message at ``index`` no longer runs."""
        start = self._offset + _TABLE + 16 * index
        self.memory[start : start + 16] = _EMPTY
        self.deadline(index, 0.0)
        self._free.append(index)

    def deadline(self, index: int, at: float) -> None:
        """Say when the message at ``index`` must have ended, by `taskq.broker.protocol.boottime`; 0 for no limit."""
        _DOUBLE.pack_into(self.memory, self._deadlines_at + 8 * index, at)

    def retire(self) -> None:
        """Say that the child takes nothing more, and ends when what it runs has ended."""
        self.memory[self._offset + 26] = _RETIRING

    def leave_with(self, code: int) -> None:
        """Say that the child holds nothing any more and leaves with that exit code."""
        self.memory[self._offset + 26] = _LEFT + code

    # -- either writes and reads --------------------------------------------------------------------------

    @property
    def shown(self) -> bool:
        """Whether the child has shown its stacks since it was asked to."""
        return bool(self.memory[self._offset + 25])

    @shown.setter
    def shown(self, value: bool) -> None:
        self.memory[self._offset + 25] = value

    # -- the parent writes, either reads ------------------------------------------------------------------

    @property
    def retiring(self) -> bool:
        """Whether the child has said that it takes nothing more."""
        return self.memory[self._offset + 26] >= _RETIRING

    @property
    def exit_code(self) -> int | None:
        """With which code the child leaves, if it has said that it holds nothing any more."""
        state = self.memory[self._offset + 26]
        return state - _LEFT if state >= _LEFT else None

    @property
    def incarnation(self) -> str:
        """The lane's incarnation, empty if it has none."""
        return self.memory[self._offset : self._offset + 16].strip(b"\0").decode()

    @property
    def lease_until(self) -> float:
        """End of the lease by `taskq.broker.protocol.boottime`."""
        return _DOUBLE.unpack_from(self.memory, self._offset + 16)[0]  # type: ignore[no-any-return]

    def renewed(self, lease_until: float) -> None:
        """Note a renewal."""
        _DOUBLE.pack_into(self.memory, self._offset + 16, lease_until)

    def revoke(self, entries: Sequence[bytes]) -> None:
        """Say which messages are revoked, by their digests; at most as many as the lane can hold."""
        region = b"".join(entries[: self.capacity]).ljust(16 * self.capacity, b"\0")
        self.memory[self._revoked_at : self._revoked_at + len(region)] = region

    def revoked(self) -> frozenset[int]:
        """Return the indexes in the table of messages that are revoked."""
        region = self.memory[self._revoked_at : self._revoked_at + 16 * self.capacity]
        entries = {region[i : i + 16] for i in range(0, len(region), 16)} - {_EMPTY}
        start = self._offset + _TABLE
        table = self.memory[start : start + 16 * self.capacity] if entries else b""
        return frozenset(i >> 4 for i in range(0, len(table), 16) if table[i : i + 16] in entries)

    def running(self) -> frozenset[bytes]:
        """Return the digests of the messages that run."""
        index = self.memory[self.index_at]
        start = self._offset + _TABLE
        if index == _IDLE:
            return frozenset()
        if index != _ALL:
            return frozenset([self.memory[start + 16 * index : start + 16 * index + 16]])
        table = self.memory[start : start + 16 * self.capacity]
        return frozenset(table[i : i + 16] for i in range(0, len(table), 16)) - {_EMPTY}

    def overdue(self, now: float) -> list[bytes]:
        """Return the digests of running messages whose deadline has passed."""
        deadlines = struct.unpack_from(f"<{self.capacity}d", self.memory, self._deadlines_at)
        start = self._offset + _TABLE
        late = [index for index, deadline in enumerate(deadlines) if 0 < deadline < now]
        running = self.running() if late else frozenset()
        entries = (self.memory[start + 16 * index : start + 16 * index + 16] for index in late)
        return [entry for entry in entries if entry in running]


def region_size(capacity: int) -> int:
    """Bytes a lane's region takes."""
    return _TABLE + 40 * capacity


class SeatTable:
    """The seats of all children of a worker; the memory has a descriptor, by which it reaches those not forked."""

    def __init__(self, children: int, lanes: Sequence[int], descriptor: int | None = None) -> None:
        """Make the table, or open it.

        Args:
            children: How many children there can be at once.
            lanes: Capacity of each of a child's lanes.
            descriptor: Of the memory of another table of that size; None for new memory.
        """
        self._children = children
        self._lanes = list(lanes)
        self._child_size = sum(map(region_size, lanes))
        size = max(1, children * self._child_size)
        self._descriptor = _new_memory(size) if descriptor is None else descriptor
        self.memory = mmap.mmap(self._descriptor, size)

    def __reduce__(self) -> Any:
        """Be pickled for a process that is about to be started."""
        return _opened, (self._children, self._lanes, DupFd(self._descriptor))

    def close(self) -> None:
        """Let go of the descriptor; the memory stays as long as anybody uses it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def of(self, child: int) -> list[Seat]:
        """Return the seats of a child's lanes."""
        offset, seats = child * self._child_size, []
        for capacity in self._lanes:
            seats.append(Seat(self.memory, offset, capacity))
            offset += region_size(capacity)
        return seats


def _opened(children: int, lanes: list[int], inherited: Any) -> SeatTable:
    table = SeatTable(children, lanes, inherited.detach())
    table.close()
    return table


def _new_memory(size: int) -> int:
    """Return the descriptor of so many bytes, all zero, that have no name and vanish with their last user."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("taskq-seats")
    else:
        import tempfile

        descriptor, path = tempfile.mkstemp(prefix="taskq-seats-")
        os.unlink(path)
    os.truncate(descriptor, size)
    return descriptor
