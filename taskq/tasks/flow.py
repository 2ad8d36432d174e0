"""When a waiting message may run, and in which order: priority, fairness, limits, unique work, the length of a queue.

All of it is decided on the server, in the script that takes messages. Here is what a task declares, and how a call says
what the server has to know of it: a few short fields after the names in the head of its message (see
`taskq.message.head`), made from the call's arguments.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from taskq.config import LONGEST
from taskq.errors import ConfigError
from taskq.message.letters import (
    FIELD_DEBOUNCE,
    FIELD_FAIR,
    FIELD_LIMITED,
    FIELD_LOCK,
    FIELD_PRIORITY,
    OPTION_MOST,
)
from taskq.tasks.keys import Arguments, Key, check_key
from taskq.tasks.limits import Breaker, Limit, is_number

_LOWEST, _HIGHEST = -100, 100


@dataclass(frozen=True, slots=True)
class Flow:
    """The flow options of a task, as declared; `taskq.tasks.options` says what they mean."""

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
            if seconds is not None and not (is_number(seconds) and 0 < seconds <= LONGEST):
                raise ConfigError(f"{name} must be a number of seconds above 0, not {seconds!r}")
        if not (is_number(self.full_timeout) and 0 <= self.full_timeout <= LONGEST):
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
            check_key(name, getattr(self, name))
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
        lines = [limit.published("k" if limit.key is not None else "o" if own else "s") for limit in self.all_limits]
        if self.breaker is not None:
            lines.append(self.breaker.published("B" if own else "b"))
        return "\n".join(map(str, lines))

    @property
    def depends_on_call(self) -> bool:
        """Whether the fields in the head depend on the arguments of the call."""
        keyed = any(limit.key is not None for limit in self.all_limits)
        return bool(keyed or self.fair_by or self.unique or self.debounce or self.throttle)

    @property
    def holds_together(self) -> bool:
        """Whether what becomes of a call depends on others of the task: it has limits, a breaker, or locks."""
        return bool(self.all_limits or self.breaker or self.unique or self.debounce or self.throttle)

    @property
    def words(self) -> bytes:
        """The options for the enqueue script that every call has."""
        return b"" if self.max_length is None else b"%s%d" % (OPTION_MOST, self.max_length)

    def fields(self, task: str, call: Arguments, priority: int | None = None) -> bytes:
        """Write the fields that follow the names in the head of a call.

        Raises:
            ConfigError: A key function that fails, or an invalid key.
        """
        level = self.priority if priority is None else check_priority(priority)
        written = []
        if level:
            written.append(_field(FIELD_PRIORITY, bytes([level + 128])))
        if self.fair_by is not None:
            weight = 1.0 if self.fair_weight is None else self._weight(task, call)
            key = call.key(task, "fair_by", self.fair_by)
            written.append(_field(FIELD_FAIR, struct.pack(">d", weight) + (key or "").encode()))
        for n, limit in enumerate(self.all_limits, 1):
            if limit.key is not None and (key := call.key(task, "key", limit.key)) is not None:
                written.append(_field(b"%d" % n, key.encode()))
        if self.all_limits or self.breaker or self.unique or self.debounce:
            written.append(_field(FIELD_LIMITED, b""))
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
        lock = _field(FIELD_LOCK, b"%s%d:%s" % (mode, _ms(seconds), name.encode()))
        if self.debounce is None:
            return [lock]
        return [lock, _field(FIELD_DEBOUNCE, b"%d:%d" % (_ms(self.debounce), _ms(self.max_wait)))]

    def _weight(self, task: str, call: Arguments) -> float:
        assert self.fair_weight is not None
        weight = call.ask(task, "fair_weight", self.fair_weight)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0.001 <= weight <= 1000:
            raise ConfigError(f"fair_weight of task {task} must give a number from 0.001 to 1000, not {weight!r}")
        return float(weight)


_DEFAULTS = {field.name: field.default for field in fields(Flow)}


#: Options that mean nothing without one of certain others: the option, the others, what it does.
_NEEDS = (
    ("burst", ("rate",), "says how much of a rate may come at once"),
    ("key", ("rate", "max_concurrency"), "says what a limit counts separately"),
    ("fair_weight", ("fair_by",), "weighs the keys of fair_by"),
    ("unique_by", ("unique", "debounce", "throttle"), "says which calls are the same"),
    ("on_duplicate", ("unique", "debounce", "throttle"), "says what happens to a call that is the same as another"),
    ("unique_for", ("unique",), "says for how long a call is unique"),
    ("max_wait", ("debounce",), "limits how long a call may be put off"),
    ("full_timeout", ("max_length",), "says how long a call waits for room"),
)


def check_priority(priority: Any) -> int:
    """Return a valid priority; raises `ConfigError` for anything else."""
    if type(priority) is not int or not _LOWEST <= priority <= _HIGHEST:
        raise ConfigError(f"priority must be a whole number from {_LOWEST} to {_HIGHEST}, not {priority!r}")
    return priority


def _ms(seconds: float | None) -> int:
    """Return whole ms, at least 1; 0 stands for no limit."""
    return 0 if seconds is None else max(1, round(seconds * 1000))


def _field(letter: bytes, content: bytes) -> bytes:
    return letter + bytes([len(content)]) + content


#: The names of the flow options of a task.
OPTIONS = tuple(field.name for field in fields(Flow))


def split_flow_options(options: dict[str, Any]) -> Flow:
    """Take the flow options out of the options of a task."""
    return Flow(**{name: options.pop(name) for name in OPTIONS if name in options})
