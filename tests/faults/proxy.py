"""A TCP proxy in front of a server's unix socket that does to a connection what networks do.

What happens to each call is decided by ``proxy.decide``, which sees its number (calls of all connections counted
together, handshakes not counted) and its bytes. A client of taskq has one call in flight, so what the server sends
after a request is its reply.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PASS = "pass"
#: The server executes the call, the connection breaks before its reply.
DROP_REPLY = "drop the reply"
#: The same, by a reset in the middle of the reply.
CUT_REPLY = "cut the reply"
#: The connection breaks, the server never sees the call.
DROP_REQUEST = "drop the request"
#: The call is kept until `Proxy.release`, whatever becomes of its connection: it executes late.
HOLD = "hold the request"

_HANDSHAKE = (b"HELLO", b"CLIENT", b"AUTH", b"SELECT")


class Proxy:
    """Listens on a port of its own and speaks to the server for whoever connects.

    Attributes:
        decide: Answers one of the constants above for a call.
        latency: Seconds by which each reply is late.
        trickle: Whether bytes of replies come one by one.
        swallow: Whether everything sent either way vanishes, without the connection being closed (half-open).
        target: The socket of the server that new connections lead to.
        held: Calls kept, each with the connection to the server it is for.
        calls: How many calls there were.
    """

    def __init__(self, target: Path) -> None:
        self.target = str(target)
        self.decide: Callable[[int, bytes], str] = lambda number, call: PASS
        self.latency = 0.0
        self.trickle = False
        self.swallow = False
        self.held: list[tuple[socket.socket, bytes]] = []
        self.calls = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._forgotten: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def release(self) -> None:
        """Let the server execute what is held; returns when it has."""
        while self.held:
            server, call = self.held.pop()
            server.sendall(call)
            server.settimeout(10)
            server.recv(1 << 20)
            server.close()

    def reset(self) -> None:
        """Break every connection there is."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RD)  # wakes its thread, which closes it

    def forget(self) -> None:
        """Swallow what is sent on the connections there are, as a load balancer does with those that were idle."""
        self._forgotten |= self._open

    def close(self) -> None:
        """Stop listening, and break every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        while self.held:
            self.held.pop()[0].close()
        self.reset()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server, fate = socket.socket(socket.AF_UNIX), PASS
        try:
            server.connect(self.target)
            while True:
                ready, _, _ = select.select([client, server], [], [])
                if client in ready:
                    if not (call := client.recv(1 << 20)):
                        return
                    if self.swallow or client in self._forgotten:
                        continue
                    fate = PASS if any(word in call[:40] for word in _HANDSHAKE) else self._fate(call)
                    if fate == HOLD:
                        self.held.append((server, call))
                        server = socket.socket()  # the other one is kept until it is released
                        client.recv(1)  # the client hears nothing, and gives up in the end
                        return
                    if fate == DROP_REQUEST:
                        return
                    server.sendall(call)
                else:
                    if not (reply := server.recv(1 << 20)) or fate == DROP_REPLY:
                        return
                    if fate == CUT_REPLY:
                        client.sendall(reply[: len(reply) // 2])
                        return
                    self._answer(client, reply)
        except OSError:
            pass
        finally:
            self._open.discard(client)
            self._forgotten.discard(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
            client.close()
            server.close()

    def _fate(self, call: bytes) -> str:
        with self._lock:
            self.calls += 1
            return self.decide(self.calls, call)

    def _answer(self, client: socket.socket, reply: bytes) -> None:
        if self.latency:
            time.sleep(self.latency)
        if self.swallow:
            return
        for piece in (reply[i : i + 1] for i in range(len(reply))) if self.trickle else (reply,):
            client.sendall(piece)
