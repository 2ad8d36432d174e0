"""What tells one user, tenant or job from another: a key made from the arguments of a call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from uuid import UUID

from taskq.errors import ConfigError
from taskq.message import codec

#: What tells one user, tenant or job from another: the name of an argument, or a function of the arguments by name.
Key = str | Callable[..., Any]


#: Longest text of a key that is stored as it is; a digest stands for a longer one.
_KEY_MAX = 100


class Arguments:
    """The arguments of one call by name, for the functions that make keys of them."""

    def __init__(self, named: dict[str, Any]) -> None:
        """Hold them; made by ``Definition.named``."""
        self._named = named

    def key(self, task: str, option: str, by: Key) -> str | None:
        """Return the text of a key; None if the call has none."""
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
        """Call a function of the arguments; an error names the option and the task."""
        try:
            return function(**self._named)
        except Exception as error:
            raise ConfigError(f"{option} of task {task} raised {type(error).__name__}: {error}") from error

    def digest(self) -> str:
        """Return a digest of all arguments; equal ones have the same, whatever the order of the keys of their dicts."""
        flat = [word for item in sorted(self._named.items()) for word in item]
        return hashlib.blake2b(codec.in_order(codec.pack(flat)), digest_size=16).hexdigest()


#: For a call whose arguments do not matter.
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


def check_key(option: str, key: Any) -> None:
    """Raise `ConfigError` for what cannot name a key."""
    if key is not None and not isinstance(key, str) and not callable(key):
        raise ConfigError(f"{option} must be the name of an argument or a function of the arguments, not {key!r}")
