"""Which arguments of a task operators may see: those that its ``show_args`` names, and no others.

Workers tell the server, so that ``taskq ps`` needs none of the code. For each task that shows any: the names of its
parameters by their positions, empty for one that is not shown; ``=name`` for one that can only be given by name; and
``*`` at the end if all other arguments may be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any

from taskq.errors import ConfigError
from taskq.spelling import guess

#: Characters of a value that are shown.
_MOST = 80

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def shown_parameters(signature: Signature, show: Any, task: str) -> list[str]:
    """Return what workers tell of a task; empty if nothing of its arguments may be shown.

    Raises:
        ConfigError: ``show`` is neither True, False nor names of parameters.
    """
    parameters = signature.parameters.values()
    if show is True:
        names = {one.name for one in parameters}
    elif show is False:
        names = set()
    elif isinstance(show, (list, tuple, set, frozenset)):
        names = set(show)
    else:
        raise ConfigError(f"show_args of task {task} must be True, False or a list of argument names, not {show!r}")
    for name in sorted(map(str, names)):
        if name not in signature.parameters:
            raise ConfigError(
                f"show_args of task {task}: it has no argument {name!r}{guess(name, signature.parameters)}"
            )
    if not names:
        return []
    told = [one.name if one.name in names else "" for one in parameters if one.kind in _POSITIONAL]
    told += [f"={one.name}" for one in parameters if one.kind is Parameter.KEYWORD_ONLY and one.name in names]
    return [*told, "*"] if show is True else told


def shown_call(told: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments of a call that may be shown, as text; ``told`` as `shown_parameters` returns it."""
    told = list(map(str, told))  # as the server has it
    everything = told[-1:] == ["*"]
    names = [name for name in told if name[:1] not in ("=", "*")]
    shown = {}
    for at, value in enumerate(args):
        name = names[at] if at < len(names) else f"*{at}" if everything else ""
        if name:
            shown[name] = _text(value)
    for name, value in kwargs.items():
        if everything or name in names or f"={name}" in told:
            shown[str(name)] = _text(value)
    return shown


def _text(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST else text[: _MOST - 1] + "…"
