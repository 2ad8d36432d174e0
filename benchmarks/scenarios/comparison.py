"""Other task queues, each in an environment of its own, the same no-op, the same server, over TCP."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from benchmarks import lab
from benchmarks.scenarios import Bench, Samples

PEERS = Path(lab.ROOT / "benchmarks" / "peers")


def requirements(name: str) -> list[str]:
    """What a peer's file says it needs, read without importing it."""
    for statement in ast.parse((PEERS / f"{name}.py").read_text()).body:
        target = statement.target if isinstance(statement, ast.AnnAssign) else None
        targets = statement.targets if isinstance(statement, ast.Assign) else [target]
        if any(isinstance(t, ast.Name) and t.id == "REQUIREMENTS" for t in targets):
            return list(ast.literal_eval(statement.value))  # type: ignore[attr-defined]
    raise ValueError(f"peers/{name}.py has no REQUIREMENTS")


def environment(name: str, cache: Path) -> str:
    """The interpreter of a peer's environment, made if need be; for taskq, and the hand loop, this one."""
    needed = requirements(name)
    if not needed:
        return sys.executable
    folder = cache / name
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--upgrade", *needed], check=True)
        (folder / "complete").touch()
    return str(python)


def compare(bench: Bench, name: str, python: str) -> Samples:
    """One repeat of one peer: send, drain, and the round trip of one call at a time."""
    url = bench.server.tcp
    env = {"BENCH_URL": url, "TASKQ_URL": url, "BENCH_FOLDER": str(bench.folder)}
    ours = name in ("taskq", "hand", "classic")
    n = bench.n(50_000, 20_000) if ours else bench.n(3000, 1500)

    def measure(what: str, n: int) -> Samples:
        bench.clear()
        more = {"BENCH_RESULTS": "1"} if what == "ask" else {}
        took = lab.role("benchmarks.peers", name, what, n, python=python, env={**env, **more})
        return ((f"peer.{name}.{column}", value) for column, value in took.items())

    if name != "hand":
        yield from measure("enqueue", bench.n(10_000 if ours else 3000, 300))
    yield from measure("drain", n)
    if name not in ("hand", "classic"):
        bench.server.pin(False)
        yield from measure("ask", bench.n(200 if ours else 60, 20))
        bench.server.pin(True)
