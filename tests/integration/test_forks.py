"""Producers in processes that were forked behind Python's back: by C code, which calls none of its hooks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from taskq.broker.net.embedded import EmbeddedServer, _answers
from tests.support import Server, new_app, survey, wait_until

HEAD = """
import asyncio, ctypes, os, sys, threading, time
from taskq import TaskQ

app = TaskQ(sys.argv[1], sys.argv[2] or None)
fork = ctypes.PyDLL(None).fork

@app.task(name="add")
def add(i): ...

def in_children(what, n=4):
    pids = []
    for number in range(n):
        pid = fork()
        if pid == 0:
            code = 1
            try:
                what(number)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * n
"""

SEND = """
def send(number):
    for i in range(50):
        add.delay(i)
        add.apply_async((i,), countdown=60)
    handles = add.delay_many(range(100))
    assert len({handle.id for handle in handles} | {add.delay(1).id}) == 101
    asyncio.run(add.adelay(1))
"""

CASES = {
    "before anything was sent": SEND + "in_children(send)",
    "after the parent has sent": SEND + "add.delay(0); asyncio.run(add.adelay(0)); in_children(send)",
    "on the parent's loop": SEND
    + """
async def main():
    await add.adelay(0)
    def child(number):
        asyncio._set_running_loop(None)  # what asyncio's own hook does
        asyncio.new_event_loop().run_until_complete(add.adelay(1))
    in_children(child)
    await add.adelay(0)
asyncio.run(main())
""",
    "while another thread holds a lock": SEND
    + """
with app.client._lock:
    in_children(send)
add.delay(0)
handle = add.delay(1)
threading.Thread(target=lambda: handle.get(), daemon=True).start()
time.sleep(0.2)
with app.client.inbox._changed:
    def wait(number):
        send(number)
        try:
            handle.get(0.1)
        except TimeoutError:
            pass
    in_children(wait)
""",
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_process_forked_by_c_code_sends_is_accepted_once(
    case: str, session_server: Server, tmp_path: Path
) -> None:
    app = new_app(session_server.url)
    (tmp_path / "producer.py").write_text(HEAD + CASES[case])

    done = subprocess.run(
        [sys.executable, "producer.py", app.name, session_server.url], cwd=tmp_path, timeout=50,
        capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    accepted = {"on the parent's loop": 6, "before anything was sent": 808, "after the parent has sent": 810}
    assert survey(app)["add"].counters["accepted"] == accepted.get(case, 1618)


WSGI = """
import os
from taskq import TaskQ

app = TaskQ(os.environ["APP"], os.environ["TASKQ_URL"])

@app.task(name="add")
def add(i): ...

add.delay(0)  # at import, which is in the master

def application(environ, start_response):
    for i in range(20):
        add.delay(i)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


@pytest.mark.skipif(not shutil.which("uwsgi", path=os.path.dirname(sys.executable)), reason="pyuwsgi is not installed")
def test_calls_of_uwsgi_workers_are_accepted_once(session_server: Server, tmp_path: Path) -> None:
    app = new_app(session_server.url)
    (tmp_path / "wsgi.py").write_text(WSGI)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {**os.environ, "APP": app.name, "TASKQ_URL": session_server.url, "PYTHONPATH": os.pathsep.join(sys.path)}

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as reply:
                pids.add(reply.read())
            return True
        except ConnectionError:
            return False
        except OSError as error:
            return not isinstance(getattr(error, "reason", None), ConnectionError)

    pids: set[bytes] = set()
    with open(tmp_path / "log", "wb") as log:
        uwsgi = subprocess.Popen(
            [Path(sys.executable).parent / "uwsgi", "--http-socket", f"127.0.0.1:{port}", "--master",
             "--processes", "2", "--wsgi-file", "wsgi.py", "--need-app", "--die-on-term", "--disable-logging"],
            cwd=tmp_path, env=environ, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_until(lambda: answers() or uwsgi.poll() is not None, "uWSGI answers")
        asked = 1
        while len(pids) < 2 and asked < 200:
            assert answers()
            asked += 1
    finally:
        uwsgi.terminate()
        uwsgi.wait()

    assert len(pids) == 2, (tmp_path / "log").read_text()
    assert survey(app)["add"].counters["accepted"] == 1 + 20 * asked


def test_a_process_forked_by_c_code_is_a_user_of_the_embedded_server(short_folder: Path, tmp_path: Path) -> None:
    project = short_folder / tmp_path.name
    project.mkdir()
    (project / "pyproject.toml").write_text("")
    (project / "producer.py").write_text(
        HEAD
        + """
add.delay(0)
pid = fork()
if pid == 0:
    add.delay(1)
    print("sent", flush=True)
    sys.stdin.read()
    add.delay(2)
    print("sent again", flush=True)
"""
    )
    environ = {name: value for name, value in os.environ.items() if name != "TASKQ_URL"}

    with subprocess.Popen(
        [sys.executable, "producer.py", "embedded", ""], cwd=project, env=environ, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        assert parent.stdout.readline() == "sent\n"
        parent.wait(20)
        assert _answers(EmbeddedServer(project).socket_path), "its parent did not stop it"
        assert parent.stdin is not None
        parent.stdin.close()
        assert parent.stdout.readline() == "sent again\n"
