"""One connection to the server, for one thread at a time: executes commands, nothing more.

`Connection` is the sync one; `taskq.broker.aio` has its twin for an event loop. Both raise only `NotSent`,
`Unanswered`, `Passing` (see `taskq.broker.faults`), an error of `taskq.errors`, or what a command's ``parse`` raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)

from taskq.broker.faults import NotSent, Unanswered, refused
from taskq.broker.url import new_connection
from taskq.errors import BrokerRefused, ServerUnsuitable, TaskqError

if TYPE_CHECKING:
    from taskq.broker.commands import Arg, Command
    from taskq.broker.scripts import Script

T = TypeVar("T")

#: Seconds beyond its own blocking time within which the server must answer.
ANSWER_TIMEOUT = 5.0


def pack(words: Sequence[Arg]) -> bytes:
    """Write one command in the wire format (RESP, an array of bulk strings)."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        if type(word) is not bytes:
            word = str(word).encode()
        parts.append(b"$%d\r\n" % len(word))
        parts.append(word)
        parts.append(b"\r\n")
    return b"".join(parts)


def pack_script(script: Script, args: Sequence[Arg], *, whole: bool = False) -> bytes:
    """Write the call of a script, by its SHA or with its ``whole`` text; its first argument is its only key."""
    return pack([b"EVAL", script.text, 1, *args] if whole else [b"EVALSHA", script.sha, 1, *args])


def pack_wait(command: Command[Any]) -> bytes:
    """Write the wait that goes before a command; nothing if there is none."""
    return b"" if command.bell is None else pack([b"BLPOP", command.bell, f"{command.block:.3f}"])


class Connection:
    """A connection; made when first used, and again after it broke."""

    def __init__(self, url: str, timeout: float = ANSWER_TIMEOUT) -> None:
        """Prepare a connection to ``url`` that waits ``timeout`` seconds for an answer."""
        self.url = url
        self.timeout = timeout
        self._raw = new_connection(url, timeout)
        self._connected = False  # a copy of what redis-py knows: asking it costs as much as an empty call

    def execute(self, command: Command[T]) -> T:
        """Execute a command and return its parsed reply."""
        script, within = command.script, command.within
        if within is None and command.block:
            within = self.timeout + command.block
        if script is None:
            return command.parse(self.roundtrip(pack(command.args), within))
        reply = self.roundtrip(pack_wait(command) + pack_script(script, command.args), within, command.bell)
        if reply is NO_SCRIPT:  # the server was restarted, or its scripts were flushed
            reply = self.roundtrip(pack_script(script, command.args, whole=True), command.within)
        return command.parse(reply)

    def roundtrip(self, packed: bytes, within: float | None = None, bell: bytes | None = None) -> Any:
        """Send a packed command and return its raw reply; `NO_SCRIPT` for a script the server does not have.

        Args:
            packed: The command. With ``bell`` it begins with a wait for that, whose reply is read and dropped.
            within: Seconds in which the (first) reply must be there, if not the usual ones.
            bell: The list to wait on.
        """
        raw = self._raw
        if not self._connected:
            self._connect()
        try:
            raw.send_packed_command((packed,), check_health=False)
            if bell is not None:
                self._read_wait(within)
                within = None
            return raw.read_response() if within is None else raw.read_response(timeout=within)
        except (RedisError, OSError) as error:
            answer = read_error(error)
            if type(answer) is Unanswered:
                self.close()
            if answer is NO_SCRIPT:
                return answer
            raise answer from None
        except BaseException:  # interrupted between a command and its reply: the next reply would be this one's
            self.close()
            raise

    def _read_wait(self, within: float | None) -> None:
        try:
            self._raw.read_response(timeout=self.timeout if within is None else within)
        except ResponseError as error:  # what follows it is executed all the same, and is not worth sorting out
            raise RedisError(str(error)) from None

    def _connect(self) -> None:
        try:
            try:
                self._raw.connect()
            except (RedisError, OSError):
                if not revive(self.url):
                    raise
                self._raw.connect()
        except (RedisError, OSError) as error:
            self.close()
            raise connect_error(error) from None
        self._connected = True

    def close(self) -> None:
        """Drop the connection; the next command makes a new one."""
        self._connected = False
        try:
            self._raw.disconnect()
        except Exception:  # a connection that cannot even be closed is simply forgotten
            self._raw = new_connection(self.url, self.timeout)


NO_SCRIPT: Any = object()


def revive(url: str) -> bool:
    """Start the server anew if it is this project's embedded one and has died; answers whether it runs."""
    from taskq.broker import embedded  # only when a connection fails: most servers are not embedded

    try:
        return embedded.revive(url)
    except (TaskqError, OSError):
        return False


def read_error(error: Exception) -> Any:
    """Return what an error raised by a round trip stands for: an exception to raise, or `NO_SCRIPT`."""
    if isinstance(error, NoScriptError):
        return NO_SCRIPT
    if isinstance(error, (ResponseError, BusyLoadingError)):
        return refused(error)
    return Unanswered(str(error) or type(error).__name__)  # also a reply that is no RESP: nothing after it counts


def connect_error(error: Exception) -> Exception:
    """Return what an error while connecting stands for: wrong credentials are final, all else may pass."""
    if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)):
        return BrokerRefused(f"the server refused the credentials: {error}")
    if "unknown command" in str(error).lower() and "HELLO" in str(error).upper():
        return ServerUnsuitable(
            "the server does not know HELLO: it is older than Redis 6; taskq needs 6.2, or any Valkey"
        )
    if isinstance(error, ResponseError):
        return refused(error)
    return NotSent(str(error) or type(error).__name__)
