"""Plant each fault of the catalogue in a copy of the package and see which test finds it: ``python -m tests.mutants``.

Ends with 1 if fewer than 95 % are found, or if a fencing fault is found by the model alone.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.catalogue import DIRECTED, MODEL, MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
ENOUGH = 0.95


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: the test that found it, and whether that was a directed one."""

    mutant: Mutant
    test: str | None
    directed: bool
    seconds: float

    @property
    def good(self) -> bool:
        """Whether it was found as it must be."""
        return self.test is not None and (self.directed or not self.mutant.fencing)

    def __str__(self) -> str:
        found = self.test or "SURVIVED"
        if self.test and not self.good:
            found += "  (A FENCING FAULT THAT ONLY THE MODEL FINDS)"
        return f"{self.mutant.name:52} {'F' if self.mutant.fencing else ' '} {self.seconds:5.1f} s  {found}"


def plant(mutant: Mutant, folder: Path) -> None:
    """Copy the package and its tests into ``folder``, with the fault."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("taskq", "tests", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    replace(folder / "taskq" / mutant.file, mutant.old, mutant.new)
    # Real workers are started where the tests put their modules; they are to find the copy all the same.
    replace(folder / "tests" / "support.py", '"PYTHONPATH": str(folder)', f'"PYTHONPATH": f"{{folder}}:{folder}"')


def replace(path: Path, old: str, new: str) -> None:
    """Replace what stands in a file exactly once."""
    text = path.read_text()
    if text.count(old) != 1:
        raise SystemExit(f"found {text.count(old)} times in {path.name}: {old}")
    path.write_text(text.replace(old, new))


def nearest(mutant: Mutant, most: int = 3) -> tuple[str, ...]:
    """Return the contract tests that speak most of what has the fault: they are run before all others."""
    word = Path(mutant.file).stem
    files = sorted((ROOT / "tests" / "contract").glob("test_*.py"))
    weights = {file: file.read_text().count(word) + 1000 * (word in file.stem) for file in files}
    likely = sorted((file for file in files if weights[file]), key=weights.__getitem__, reverse=True)
    return tuple(str(file.relative_to(ROOT)) for file in likely[:most])


def failing_test(folder: Path, tests: tuple[str, ...]) -> str | None:
    """Run tests until one fails; answers which, None if none does."""
    options = [
        "-x",
        "-q",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-k",
        "not redis",
        "--hypothesis-seed=0",
        "-o",
        "timeout=120",
    ]
    environ = {**os.environ, "PYTHONPATH": str(folder), "TASKQ_MODEL_FIND": "1"}
    process = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests], cwd=folder, env=environ, capture_output=True, text=True
    )
    if process.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", process.stdout, re.M)
    if process.returncode != 1 or found is None:
        if "Timeout" in process.stdout + process.stderr:
            return "a timeout"
        raise SystemExit(f"the tests could not be run:\n{process.stdout}\n{process.stderr}")
    return found[1]


def judge(mutant: Mutant) -> Verdict:
    """Plant one fault and look for it, with the directed tests first."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tqm") as name:
        folder = Path(name)
        plant(mutant, folder)
        near = (*mutant.tests, *nearest(mutant))
        test = failing_test(folder, near) if near else None
        test = test or failing_test(folder, DIRECTED)
        verdict = Verdict(mutant, test, True, time.monotonic() - began)
        if test is None:
            verdict = Verdict(mutant, failing_test(folder, MODEL), False, time.monotonic() - began)
    print(verdict, flush=True)
    return verdict


def main() -> int:
    """Judge all mutants, or those whose names contain a given text."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("-j", type=int, default=2, help="how many at once (default: 2)")
    parser.add_argument("--list", action="store_true", help="only check that each can be planted")
    parser.add_argument("text", nargs="?", default="", help="only those whose name contains this")
    options = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if options.text in mutant.name]
    for mutant in mutants:
        found = (ROOT / "taskq" / mutant.file).read_text().count(mutant.old)
        if found != 1:
            raise SystemExit(f"{mutant.name}: found {found} times in {mutant.file}: {mutant.old}")
    if options.list:
        print(f"{len(mutants)} mutants, {sum(mutant.fencing for mutant in mutants)} of them of the fencing")
        return 0
    with ThreadPoolExecutor(options.j) as pool:
        verdicts = list(pool.map(judge, mutants))
    caught = sum(verdict.test is not None for verdict in verdicts)
    print(f"\n{caught} of {len(verdicts)} found ({caught / len(verdicts):.1%})")
    for verdict in verdicts:
        if not verdict.good:
            print(verdict)
    fenced = all(verdict.good for verdict in verdicts if verdict.mutant.fencing)
    return 0 if fenced and caught >= ENOUGH * len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
