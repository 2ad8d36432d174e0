"""When a waiting message may run, and in which turn: priority, fairness, limits, unique work, the length of a queue.

All of it is decided on the server, in the script that takes messages. Here is what a task declares, and how a call says
what the server has to know of it: a few short fields after the names in the head of its message (see
`taskq.message.envelope`), made from the call's arguments.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import quote
from uuid import UUID

from taskq.config import LONGEST
from taskq.errors import ConfigError
from taskq.message import codec

#: What tells one user, tenant or job from another: the name of an argument, or a function of the arguments by name.
Key = str | Callable[..., Any]

_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)/([0-9]*)(ms|s|m|h|d)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
#: Longest text of a key that is stored as it is; a digest stands for a longer one.
_KEY_MAX = 100
_LOWEST, _HIGHEST = -100, 100


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of a task may run, in the whole fleet. A message that is over it waits on the server.

    Attributes:
        rate: Starts in a time, ``"100/m"``: the unit is ``s``, ``m``, ``h`` or ``d``, also as in ``"5/10s"``.
        max_concurrency: Runs at the same time.
        burst: Starts at once after a pause; what is started in 100 ms at that rate, and at least 1, unless given.
        key: Counts each user, tenant ... apart: the name of an argument, or a function of the arguments by name. A call
            whose key is None is not limited by it.
    """

    rate: str | None = None
    max_concurrency: int | None = None
    burst: int | None = None
    key: Key | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.rate is None and self.max_concurrency is None:
            raise ConfigError("a limit needs rate= or max_concurrency=")
        for name in ("max_concurrency", "burst"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"{name} must be a whole number from 1, not {value!r}")
        if self.burst is not None and self.rate is None:
            raise ConfigError("burst= says how much of a rate= may come at once; there is none")
        if self.rate is not None:
            interval_ms(self.rate)
        _check_key("key", self.key)

    def text(self, kind: str) -> str:
        """Write the limit for ``gates.lua``."""
        interval = 0.0 if self.rate is None else interval_ms(self.rate)
        burst = self.burst or max(1, int(100 / interval)) if interval else 1
        return f"{kind} {interval:.6f} {burst} {self.max_concurrency or 0}"


@dataclass(frozen=True, slots=True)
class Breaker:
    """Pauses a task that keeps failing; then lets one message through, which decides how it goes on.

    Attributes:
        failures: Share of failed runs, above 0 to 1, that opens it.
        of: Of how many of the last runs.
        pause: Seconds it stays open.
    """

    failures: float = 0.5
    of: int = 20
    pause: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not _is_number(self.failures) or not 0 < self.failures <= 1:
            raise ConfigError(f"failures of a Breaker must be a share above 0, at most 1, not {self.failures!r}")
        if type(self.of) is not int or not 1 <= self.of <= 1000:
            raise ConfigError(f"of= of a Breaker must be a whole number from 1 to 1000, not {self.of!r}")
        if not _is_number(self.pause) or not 0 < self.pause <= LONGEST:
            raise ConfigError(f"pause of a Breaker must be a number of seconds above 0, not {self.pause!r}")


@dataclass(frozen=True, slots=True)
class Flow:
    """The flow options of a task, as declared; see ``TaskQ.task`` for their meaning."""

    priority: int = 0
    fair_by: Key | None = None
    fair_weight: Callable[..., float] | None = None
    rate: str | None = None
    max_concurrency: int | None = None
    burst: int | None = None
    key: Key | None = None
    limits: Sequence[Limit] = ()
    unique: str | None = None
    unique_by: Key | None = None
    unique_for: float | None = None
    on_duplicate: str = "return"
    debounce: float | None = None
    max_wait: float | None = None
    throttle: float | None = None
    max_length: int | None = None
    full_timeout: float = 0.0
    breaker: Breaker | None = None

    def __post_init__(self) -> None:
        """Refuse what could only fail later, at a call or on the server."""
        check_priority(self.priority)
        self._check_kinds()
        for name in ("unique_for", "debounce", "max_wait", "throttle"):
            seconds = getattr(self, name)
            if seconds is not None and not (_is_number(seconds) and 0 < seconds <= LONGEST):
                raise ConfigError(f"{name} must be a number of seconds above 0, not {seconds!r}")
        if not (_is_number(self.full_timeout) and 0 <= self.full_timeout <= LONGEST):
            raise ConfigError(f"full_timeout must be a number of seconds from 0, not {self.full_timeout!r}")
        if self.max_length is not None and (type(self.max_length) is not int or self.max_length < 1):
            raise ConfigError(f"max_length must be a whole number from 1, not {self.max_length!r}")
        if self.unique not in (None, "until_start", "until_done"):
            raise ConfigError(f"unique must be 'until_start' or 'until_done', not {self.unique!r}")
        if self.on_duplicate not in ("return", "raise"):
            raise ConfigError(f"on_duplicate must be 'return' or 'raise', not {self.on_duplicate!r}")
        if sum(option is not None for option in (self.unique, self.debounce, self.throttle)) > 1:
            raise ConfigError("give one of unique=, debounce= and throttle=")
        if self.max_wait is not None and self.debounce is not None and self.max_wait < self.debounce:
            raise ConfigError(f"max_wait={self.max_wait!r} must not be below debounce={self.debounce!r}")
        for option, others, what in _NEEDS:
            if getattr(self, option) != _DEFAULTS[option] and all(getattr(self, other) is None for other in others):
                raise ConfigError(f"{option}= {what}: give {' or '.join(f'{other}=' for other in others)} as well")
        _ = self.all_limits  # refuses a limit that cannot be read

    def _check_kinds(self) -> None:
        limits = self.limits if isinstance(self.limits, (list, tuple)) else [None]
        if any(not isinstance(limit, Limit) for limit in limits) or len(limits) > 8:
            raise ConfigError("limits= takes a list of up to 8 Limit(...)")
        if self.breaker is not None and not isinstance(self.breaker, Breaker):
            raise ConfigError(f"breaker= takes a Breaker(...), not {self.breaker!r}")
        for name in ("fair_by", "unique_by"):
            _check_key(name, getattr(self, name))
        if self.fair_weight is not None and not callable(self.fair_weight):
            raise ConfigError(f"fair_weight must be a function of the arguments by name, not {self.fair_weight!r}")

    @property
    def named_keys(self) -> list[tuple[str, str]]:
        """Option and name of each key that is the name of an argument."""
        keys = [
            ("fair_by", self.fair_by),
            ("unique_by", self.unique_by),
            *(("key", lim.key) for lim in self.all_limits),
        ]
        return [(option, key) for option, key in keys if isinstance(key, str)]

    @property
    def all_limits(self) -> list[Limit]:
        """Every limit, those given by the short options first."""
        if self.rate is None and self.max_concurrency is None:
            return list(self.limits)
        return [Limit(self.rate, self.max_concurrency, self.burst, self.key), *self.limits]

    def published(self, own: bool) -> str:
        """Write the limits for the server; ``own`` says whether the task has its queue for itself."""
        texts = [limit.text("k" if limit.key is not None else "o" if own else "s") for limit in self.all_limits]
        if self.breaker is not None:
            b = self.breaker
            texts.append(f"{'B' if own else 'b'} {b.failures:g} {b.of} {round(b.pause * 1000)}")
        return "\n".join(texts)

    @property
    def depends_on_call(self) -> bool:
        """Whether what the head of a call says is its own."""
        keyed = any(limit.key is not None for limit in self.all_limits)
        return bool(keyed or self.fair_by or self.unique or self.debounce or self.throttle)

    @property
    def words(self) -> bytes:
        """The options for the enqueue script that every call has."""
        return b"" if self.max_length is None else b"m%d" % self.max_length

    def fields(self, task: str, call: Arguments, priority: int | None = None) -> bytes:
        """Write what the head of a call says beside its names.

        Raises:
            ConfigError: A key function that fails, or a key that is none.
        """
        level = self.priority if priority is None else check_priority(priority)
        written = []
        if level:
            written.append(_field(b"p", bytes([level + 128])))
        if self.fair_by is not None:
            weight = 1.0 if self.fair_weight is None else self._weight(task, call)
            key = call.key(task, "fair_by", self.fair_by)
            written.append(_field(b"f", struct.pack(">d", weight) + (key or "").encode()))
        for n, limit in enumerate(self.all_limits, 1):
            if limit.key is not None and (key := call.key(task, "key", limit.key)) is not None:
                written.append(_field(b"%d" % n, key.encode()))
        if self.all_limits or self.breaker or self.unique or self.debounce:
            written.append(_field(b"l", b""))
        written += self._lock(task, call)
        return b"".join(written)

    def _lock(self, task: str, call: Arguments) -> list[bytes]:
        if self.unique:
            mode, seconds = b"s" if self.unique == "until_start" else b"d", self.unique_for
        elif self.debounce:
            mode, seconds = b"d", None
        elif self.throttle:
            mode, seconds = b"t", self.throttle
        else:
            return []
        if self.unique_by is not None:
            key = call.key(task, "unique_by", self.unique_by)
        else:
            key = call.digest() if self.unique else None  # a series of calls differs in its arguments
        name = f"{task}|{key or ''}"
        if len(name) > 200:
            name = "~" + hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        lock = _field(b"u", b"%s%d:%s" % (mode, _ms(seconds), name.encode()))
        if self.debounce is None:
            return [lock]
        return [lock, _field(b"d", b"%d:%d" % (_ms(self.debounce), _ms(self.max_wait)))]

    def _weight(self, task: str, call: Arguments) -> float:
        assert self.fair_weight is not None
        weight = call.ask(task, "fair_weight", self.fair_weight)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0.001 <= weight <= 1000:
            raise ConfigError(f"fair_weight of task {task} must give a number from 0.001 to 1000, not {weight!r}")
        return float(weight)


_DEFAULTS = {field.name: field.default for field in fields(Flow)}
#: Options that mean nothing without one of others: the option, those, what it does.
_NEEDS = (
    ("burst", ("rate",), "says how much of a rate may come at once"),
    ("key", ("rate", "max_concurrency"), "says what a limit counts apart"),
    ("fair_weight", ("fair_by",), "weighs the keys of fair_by"),
    ("unique_by", ("unique", "debounce", "throttle"), "says which calls are the same"),
    ("on_duplicate", ("unique", "debounce", "throttle"), "says what a call is that is the same as another"),
    ("unique_for", ("unique",), "says for how long a call is unique"),
    ("max_wait", ("debounce",), "bounds how long a call may be put off"),
    ("full_timeout", ("max_length",), "says how long a call waits for room"),
)


class Arguments:
    """The arguments of one call by name, for the functions that make keys of them."""

    def __init__(self, named: dict[str, Any]) -> None:
        """Hold them; made by ``Definition.named``."""
        self._named = named

    def key(self, task: str, option: str, by: Key) -> str | None:
        """Return the text of a key; None for none."""
        if callable(by):
            value = self.ask(task, option, by)
        elif by in self._named:
            value = self._named[by]
        else:
            raise ConfigError(f"{option}={by!r} of task {task} is not one of its arguments: {', '.join(self._named)}")
        try:
            return None if value is None else key_text(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{option} of task {task} gave {error}") from None

    def ask(self, task: str, option: str, function: Callable[..., Any]) -> Any:
        """Call a function of the arguments; its error names it."""
        try:
            return function(**self._named)
        except Exception as error:
            raise ConfigError(f"{option} of task {task} raised {type(error).__name__}: {error}") from error

    def digest(self) -> str:
        """Return a digest of all arguments; equal ones have the same, whatever the order of the keys of their dicts."""
        flat = [word for item in sorted(self._named.items()) for word in item]
        return hashlib.blake2b(codec.in_order(codec.pack(flat)), digest_size=16).hexdigest()


#: Of a call whose arguments do not matter.
NO_ARGUMENTS = Arguments({})


def key_text(value: Any) -> str:
    """Return the text that stands for a key: without spaces, at most 100 characters; a digest if it is longer.

    Raises:
        TypeError: Not a string, a number, a UUID, or a tuple of these.
        ValueError: A number too long to be written.
    """
    if isinstance(value, tuple):
        text = f"({''.join(key_text(item) + ',' for item in value)})"
    elif isinstance(value, (str, int, float, UUID)):
        if len(text := str(value)) <= _KEY_MAX:
            text = quote(text, safe="!$&'*+;:@/?-._~", errors="backslashreplace")
    else:
        raise TypeError(f"{value!r:.80}, which is no key: use a string, a number, a UUID, or a tuple of these")
    if len(text) > _KEY_MAX:
        return "~" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return text


def check_priority(priority: Any) -> int:
    """Return a priority; raises `ConfigError` if it is none."""
    if type(priority) is not int or not _LOWEST <= priority <= _HIGHEST:
        raise ConfigError(f"priority must be a whole number from {_LOWEST} to {_HIGHEST}, not {priority!r}")
    return priority


def _check_key(option: str, key: Any) -> None:
    if key is not None and not isinstance(key, str) and not callable(key):
        raise ConfigError(f"{option} must be the name of an argument or a function of the arguments, not {key!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _ms(seconds: float | None) -> int:
    """Return whole ms, at least 1; 0 stands for no limit."""
    return 0 if seconds is None else max(1, round(seconds * 1000))


def interval_ms(rate: Any) -> float:
    """Return the ms between two starts at a rate.

    Raises:
        ConfigError: Not a rate.
    """
    match = _RATE.fullmatch(rate) if isinstance(rate, str) and len(rate) <= 30 else None
    interval = 0.0
    if match is not None and float(match[1]):
        interval = int(match[2] or 1) * _UNIT_MS[match[3]] / float(match[1])
    if not 1e-5 <= interval <= LONGEST * 1000:
        raise ConfigError(
            f"rate {rate!r:.80} cannot be read: write for example '100/m', '5/10s' or '0.5/s'; more than 0"
        )
    return interval


def rate_text(interval: float) -> str:
    """Write a rate of which `interval_ms` is ``interval``: the unit in which it is a whole number, if there is one."""
    counts = [(unit, size / interval) for unit, size in _UNIT_MS.items() if unit != "ms"]
    whole = [(unit, count) for unit, count in counts if count >= 0.999 and abs(count - round(count)) < 0.001 * count]
    unit, count = (whole or [found for found in counts if found[1] >= 1] or counts[-1:])[0]
    return f"{round(count) if whole else f'{count:.3g}'}/{unit}"


def _field(letter: bytes, content: bytes) -> bytes:
    return letter + bytes([len(content)]) + content


#: The names of the flow options of a task.
OPTIONS = tuple(field.name for field in fields(Flow))


def split_flow_options(options: dict[str, Any]) -> Flow:
    """Take the flow options out of the options of a task."""
    return Flow(**{name: options.pop(name) for name in OPTIONS if name in options})
