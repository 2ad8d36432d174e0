"""Producers whose process is ending: the first call of all comes when the interpreter shuts down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Server, new_app, survey

HEAD = """
import atexit, sys, threading
from taskq import TaskQ

app = TaskQ(sys.argv[1], sys.argv[2])

@app.task(name="add")
def add(i): ...

def send():
    add.delay(1)
    print(add.delay_many([1, 2])[0].state)
"""

CASES = {
    "at exit": "atexit.register(send)",
    "in a thread after the main one": """
def last():
    threading.main_thread().join()
    send()
threading.Thread(target=last).start()
""",
}


@pytest.mark.parametrize("case", CASES)
def test_the_first_call_of_a_process_that_ends_is_accepted(case: str, session_server: Server, tmp_path: Path) -> None:
    app = new_app(session_server.url)
    (tmp_path / "producer.py").write_text(HEAD + CASES[case])

    done = subprocess.run(
        [sys.executable, "producer.py", app.name, session_server.url], cwd=tmp_path, capture_output=True, text=True
    )

    assert (done.stdout, done.stderr) == ("PENDING\n", "")
    assert survey(app)["add"].counters["accepted"] == 3
