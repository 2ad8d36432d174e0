"""Faults at the wire: in a real process the n-th execution of a command fails, or kills the process, before or after.

`plant` writes a ``sitecustomize.py`` into a folder; a Python process that has the folder on its PYTHONPATH and a fault
in its environment then patches ``Connection.roundtrip`` and its async twin. That is the seam: below all code that
decides. Executions are counted over all processes of a case, so a fault happens once, wherever it happens.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What can happen: the request is lost, the reply is lost, and the same by the death of the process.
MODES = ("fail-before", "fail-after", "die-before", "die-after")
VARIABLE = "TASKQ_TEST_BREAK"
#: Stands for each of the commands that are no script.
PLAIN = "plain commands"


def plant(folder: Path) -> None:
    """Let Python processes with ``folder`` on their path obey the environment of `faults`."""
    (folder / "sitecustomize.py").write_text(
        f"import os\nif {VARIABLE!r} in os.environ:\n    import runpy\n    runpy.run_path({__file__!r})['install']()\n"
    )


def faults(folder: Path, *breaks: tuple[str, str, int]) -> dict[str, str]:
    """Return the environment in which the n-th execution of a script (or of every plain command) breaks in a mode."""
    folder.mkdir(exist_ok=True)
    return {VARIABLE: json.dumps([str(folder), breaks])}


def happened(folder: Path, mode: str, n: int) -> set[str]:
    """Name the commands that came to their n-th execution, as counted for a mode.

    Only the counting says so: the fault of another thread may kill the process right after it.
    """
    start = f"count-{mode.partition('-')[2]}-"
    return {path.name.removeprefix(start) for path in folder.glob(f"{start}*") if path.stat().st_size >= n}


def last_command(packed: bytes) -> list[bytes]:
    """Return the first three words of the last of the packed commands: one may be sent together with a wait for it."""
    at, found = 0, []
    while at < len(packed):
        end = packed.index(b"\r\n", at)
        count, at, found = int(packed[at + 1 : end]), end + 2, []
        for _ in range(count):
            end = packed.index(b"\r\n", at)
            length = int(packed[at + 1 : end])
            if len(found) < 3:
                found.append(packed[end + 2 : end + 2 + length])
            at = end + 4 + length
    return found


class Breaks:
    """The faults that this process is to meet."""

    def __init__(self, folder: str, breaks: list[tuple[str, str, int]]) -> None:
        from taskq.broker.scripts import all_scripts

        self.folder = folder
        self.breaks = breaks
        self.scripts = {script.sha: script.name for script in all_scripts()}

    def name_of(self, packed: bytes) -> str:
        """Name a command: a script's name, or a word and what kind of key it is about."""
        command, *rest = last_command(packed)
        if command == b"EVALSHA":
            return self.scripts[rest[0]]
        if command == b"EVAL":
            return self.scripts[hashlib.sha1(rest[0]).hexdigest().encode()]
        kind = rest[0].rpartition(b"}:")[2].split(b":")[0] if rest else b""
        return f"{command.decode()} {kind.decode()}".strip()

    def now(self, packed: bytes, when: str) -> str:
        """Say what is to happen at this moment of this call: nothing (''), 'fail' or 'die'."""
        name = self.name_of(packed)
        targets = (name,) if name in self.scripts.values() else (name, PLAIN)
        modes = {n: mode for target, mode, n in self.breaks if mode.endswith(when) and target in targets}
        if not modes:
            return ""
        counted = os.open(os.path.join(self.folder, f"count-{when}-{name}"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.write(counted, b".")
        n = os.lseek(counted, 0, os.SEEK_CUR)  # with O_APPEND: the end of what this very write wrote
        os.close(counted)
        return modes.get(n, "").partition("-")[0]


def install() -> None:
    """Patch the connections of this process."""
    from taskq.broker.faults import Unanswered
    from taskq.broker.net import aio, connection

    breaks = Breaks(*json.loads(os.environ[VARIABLE]))

    def strike(what: str) -> None:
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        raise Unanswered("broken by a test")

    whole: Callable[..., Any] = connection.Connection.roundtrip
    awhole: Callable[..., Any] = aio.AsyncConnection.roundtrip

    def roundtrip(self: Any, packed: bytes, *more: Any, **named: Any) -> Any:
        if what := breaks.now(packed, "before"):
            self.close()
            strike(what)
        reply = whole(self, packed, *more, **named)
        if reply is not connection.NO_SCRIPT and (what := breaks.now(packed, "after")):
            self.close()
            strike(what)
        return reply

    async def aroundtrip(self: Any, packed: bytes, *more: Any, **named: Any) -> Any:
        if what := breaks.now(packed, "before"):
            await self.close()
            strike(what)
        reply = await awhole(self, packed, *more, **named)
        if reply is not connection.NO_SCRIPT and (what := breaks.now(packed, "after")):
            await self.close()
            strike(what)
        return reply

    connection.Connection.roundtrip = roundtrip  # type: ignore[method-assign]
    aio.AsyncConnection.roundtrip = aroundtrip  # type: ignore[method-assign]
