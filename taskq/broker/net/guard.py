"""Stops an embedded server when the last that used it was killed and could not do it.

It runs as a process of its own, started with the server, and waits for the lock that every user holds: the kernel drops
it at any death. Standard library only, and nothing of taskq: it is run as a file, by an interpreter without packages.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time

#: Seconds without any user after which the server is stopped: the next user may be about to start.
_UNUSED = 3.0
#: How many times in that time it checks whether the server still runs: the last user stops it itself if it can.
_LOOKS = 30


def stop_if_unused(folder: str, path: str, users: int) -> bool:
    """Stop the server at the socket ``path`` if the file of the lock ``users`` is locked by nobody else."""
    with open(os.path.join(folder, "start.lock"), "a+") as election:
        fcntl.flock(election, fcntl.LOCK_EX)
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return shut_down(path)


def shut_down(path: str) -> bool:
    """Let the server write its file and end; answers whether there was one."""
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10.0)
            s.connect(path)
            s.sendall(b"SHUTDOWN\r\n")
            s.recv(64)  # ends when the server is gone, its file flushed and synced
        return True
    except OSError:
        return False


def watch(folder: str, path: str, server: int) -> None:
    """Wait until nobody uses the server any more, and stop it; ends with the process ``server``."""
    while True:
        users = os.open(os.path.join(folder, "users.lock"), os.O_RDWR)
        try:
            fcntl.flock(users, fcntl.LOCK_EX)  # when the last user has gone
            fcntl.flock(users, fcntl.LOCK_UN)
            for _ in range(_LOOKS):
                os.kill(server, 0)
                time.sleep(_UNUSED / _LOOKS)
            if stop_if_unused(folder, path, users):
                return
        finally:
            os.close(users)


if __name__ == "__main__":
    try:
        watch(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except OSError:  # the server has ended, or its folder is gone
        pass
