"""A thread that must live takes its process with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging, threading, time
from taskq.worker.vital import vital
logging.basicConfig()
def work():
    {work}
threading.Thread(target=lambda: vital("the keeper", work, lambda: {may_end}), daemon=True).start()
time.sleep({lives})
print("lives on")
"""


@pytest.mark.parametrize(
    ("work", "may_end", "code", "said"),
    [
        ("1 / 0", True, 1, "the keeper broke, and this process ends with it"),
        ("raise SystemExit", True, 1, "the keeper broke"),
        ("pass", False, 1, "the keeper ended"),
        ("pass", True, 0, ""),
    ],
)
def test_one_that_breaks_or_ends_before_its_time_ends_the_process(
    work: str, may_end: bool, code: int, said: str
) -> None:
    program = PROGRAM.format(work=work, may_end=may_end, lives=60 if code else 0)

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

    assert (done.returncode, "lives on" in done.stdout) == (code, not code)
    assert said in done.stderr
