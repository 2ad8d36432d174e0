"""One connection to the server, for one thread at a time: executes commands, nothing more.

`Connection` is the sync one; `taskq.broker.net.aio` has its twin for an event loop. Both raise only `NotSent`,
`Unanswered`, `Passing` (see `taskq.broker.faults`), an error of `taskq.errors`, or what a command's ``parse`` raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from redis.exceptions import TimeoutError as LateError

from taskq.address import SCHEMES, safe_url
from taskq.broker.call import block_word
from taskq.broker.faults import NotSent, Passing, Unanswered, refused
from taskq.broker.net.url import connection_arguments, new_connection
from taskq.broker.protocol import drive
from taskq.broker.scripts import all_scripts
from taskq.errors import BrokerRefused, ServerUnsuitable, TaskqError

if TYPE_CHECKING:
    from taskq.broker.call import Arg, Command
    from taskq.broker.protocol import Protocol
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


def pack_command(command: Command[Any]) -> bytes:
    """Write a command, with the wait that goes before it."""
    if command.script is None:
        return pack(command.args)
    return pack_wait(command) + pack_script(command.script, command.args)


def pack_wait(command: Command[Any]) -> bytes:
    """Write the wait that goes before a command; nothing if there is none."""
    return b"" if command.bells is None else pack([b"BLPOP", *command.bells, block_word(command.block)])


class Connection:
    """A connection; made when first used, and again after it broke."""

    def __init__(
        self, url: str, timeout: float = ANSWER_TIMEOUT, greeting: Callable[[], Protocol[object]] | None = None
    ) -> None:
        """Prepare a connection to ``url`` that waits ``timeout`` seconds for an answer.

        ``greeting`` is done first whenever it is made: what it raises, the call raises for which that was.
        """
        self.url = url
        self.timeout = timeout
        self._greeting = greeting
        self._raw = new_connection(url, timeout)
        self._connected = False  # a copy of what redis-py knows: asking it costs as much as an empty call
        self._ahead: Command[Any] | None = None  # sent already, and not answered yet

    def execute(self, command: Command[T]) -> T:
        """Execute a command and return its parsed reply."""
        script, within, ahead = command.script, command.within, command.ahead
        if within is None and command.block:
            within = self.timeout + command.block
        sent = command is self._ahead
        if self._ahead is not None and not sent:
            self.close()  # nobody waits for the answer that is to come first
        self._ahead = None
        if command.follows and not sent:
            raise Unanswered("the connection broke on which it was sent")
        if script is None:
            return command.parse(self.roundtrip(pack(command.args), within))
        packed = pack_command(command)
        packed = packed if ahead is None else packed + pack_command(ahead)
        reply = self.roundtrip(packed, within, command.heard if command.bells else None, sent)
        if reply is NO_SCRIPT:  # the server was restarted, or its scripts were flushed
            if ahead is not None:
                self.close()
                raise Passing(LACKS_SCRIPT)
            reply = self.roundtrip(pack_script(script, command.args, whole=True), command.within)
        self._ahead = ahead
        return command.parse(reply)

    def execute_all(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Execute scripts that are sent in one write; answers of each its parsed reply, or the error that it met.

        Raises what `execute` raises if the connection cannot be made: then none was sent.
        """
        if self._ahead is not None:
            self.close()
        if not self._connected:
            self._connect(None)
        packed = [pack_command(command) for command in commands]
        answers: list[Any] = []
        for n, command in enumerate(commands):
            try:
                if not self._connected:
                    raise Unanswered("the connection broke before this answer")
                reply = self.roundtrip(packed[n] if n else b"".join(packed), sent=n > 0)
                answers.append(Passing(LACKS_SCRIPT) if reply is NO_SCRIPT else command.parse(reply))
            except (Unanswered, Passing, BrokerRefused) as error:
                answers.append(error)
        return answers

    def roundtrip(
        self,
        packed: bytes,
        within: float | None = None,
        heard: Callable[[Any], object] | None = None,
        sent: bool = False,
    ) -> Any:
        """Send a packed command and return its raw reply; `NO_SCRIPT` for a script the server does not have.

        Args:
            packed: The command. With ``heard`` it begins with a wait for bells, whose reply that is told.
            within: Seconds in which the (first) reply must be there, if not the usual ones.
            heard: Called with the reply to the wait.
            sent: Whether it is under way already.
        """
        raw = self._raw
        if not self._connected:
            self._connect(within)
        try:
            if not sent:
                raw.send_packed_command((packed,), check_health=False)
            if heard is not None:
                heard(self._read_wait(within))
                within = None
            return raw.read_response() if within is None else raw.read_response(timeout=within)
        except (RedisError, OSError) as error:
            answer = read_error(error, self.url, packed)
            if answer is NO_SCRIPT:
                return answer
            if isinstance(answer, LOOK_AGAIN):
                self.close()
            raise answer from None
        except BaseException:  # interrupted between a command and its reply: the next reply would be this one's
            self.close()
            raise

    def _read_wait(self, within: float | None) -> Any:
        try:
            return self._raw.read_response(timeout=self.timeout if within is None else within)
        except ResponseError as error:  # what follows it is executed all the same, and is not worth sorting out
            raise RedisError(str(error)) from None

    def _connect(self, within: float | None) -> None:
        self._raw.socket_timeout = self.timeout if within is None else min(within, self.timeout)
        try:
            try:
                self._raw.connect()
            except (RedisError, OSError):
                if not revive(self.url):
                    raise
                self._raw.connect()
            self._raw.update_current_socket_timeout(self.timeout)
        except (RedisError, OSError) as error:
            self.close()
            raise connect_error(error, self.url) from None
        except BaseException:  # interrupted in the midst of the handshake
            self.close()
            raise
        self._connected = True
        if self._greeting is not None:
            self._greet(self._greeting())

    def _greet(self, steps: Protocol[object]) -> None:
        try:
            drive(steps, self)
        except BaseException as error:
            self.close()
            if isinstance(error, Unanswered):  # what the connection was made for is not under way yet
                raise NotSent(str(error)) from None
            raise

    def close(self) -> None:
        """Drop the connection; the next command makes a new one."""
        self._connected = False
        self._ahead = None
        try:
            self._raw.disconnect()
        except Exception:  # a connection that cannot even be closed is simply forgotten
            self._raw = new_connection(self.url, self.timeout)


NO_SCRIPT: Any = object()
#: Said of a call with that reply which is not made again at once.
LACKS_SCRIPT = "the server does not have the script"
#: After these a connection is never used again: its next reply may be that of an earlier command, or another server may
#: have taken the place of the one at its end.
LOOK_AGAIN = (Unanswered, Passing)


def revive(url: str) -> bool:
    """Start the server anew if it is this project's embedded one and has died; answers whether it runs."""
    from taskq.broker.net import embedded  # only when a connection fails: most servers are not embedded

    try:
        return embedded.revive(url)
    except (TaskqError, OSError):
        return False


def read_error(error: Exception, url: str, packed: bytes) -> Any:
    """Return what an error raised by a round trip stands for: an exception to raise, or `NO_SCRIPT`."""
    if isinstance(error, NoScriptError):
        return NO_SCRIPT
    if isinstance(error, NoPermissionError) or "ACL failure" in str(error) or "user executing the script" in str(error):
        return not_permitted(error, url, packed)
    if isinstance(error, (ResponseError, BusyLoadingError)):
        return refused(error)
    return Unanswered(str(error) or type(error).__name__)  # also a reply that is no RESP: nothing after it counts


def not_permitted(error: Exception, url: str, packed: bytes) -> BrokerRefused:
    """Return the error of a command that its user may not give: whom the rights lack, and for what."""
    parts = packed.split(b"\r\n")  # RESP: lengths and words in turn; a script may come after a wait
    words = parts[parts.index(b"EVALSHA") if b"EVALSHA" in parts else 2 :: 2]
    what, key = words[0].decode(), words[1].decode(errors="replace") if len(words) > 1 else "no key"
    if words[0] in (b"EVALSHA", b"EVAL"):
        names = {name: script.name for script in all_scripts() for name in (script.sha, script.text)}
        what, key = f"{what} of {names.get(words[1], 'a script')}.lua", words[3].decode(errors="replace") + "*"
    user = connection_arguments(url).get("username") or "default"
    return BrokerRefused(
        f"the server refused: the user {user!r} of {safe_url(url)} lacks a right for {what} with {key}: "
        f"{str(error).rstrip('.')}. taskq needs the keys ~tq:{{<app>:* and ~tq:apps, and +@all -@dangerous +info"
    )


def connect_error(error: Exception, url: str) -> Exception:
    """Return what an error while connecting stands for: wrong credentials are final, all else may pass."""
    text, where = str(error), safe_url(url)
    if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)):
        return BrokerRefused(f"the server {where} refused the credentials: {text}")
    if "unknown command" in text.lower() and "HELLO" in text.upper():
        return ServerUnsuitable(
            f"the server {where} does not know HELLO: it is older than Redis 6; taskq needs 6.2, or any Valkey"
        )
    if isinstance(error, ResponseError):
        return refused(error)
    return NotSent((text or "it has not answered in time").rstrip(".") + _tls_hint(text, error, url))


def _tls_hint(text: str, error: Exception, url: str) -> str:
    """Say what is wrong if one side speaks TLS and the other does not, as far as an error while connecting tells."""
    kind = SCHEMES.get(url.partition("://")[0])
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "; ?ssl_ca_certs=/path/ca.pem in the URL names the authority to trust"
    if "WRONG_VERSION_NUMBER" in text:
        return "; it does not speak TLS on this port: redis:// is without"
    if kind == "rediss" and isinstance(error, (TimeoutError, LateError)):
        return "; does it speak TLS on this port? redis:// is without"
    if kind == "redis" and ("reset by peer" in text or "closed by server" in text):
        return "; if it speaks TLS on this port, the URL begins with rediss://"
    return ""
