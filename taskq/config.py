"""Settings of an app: one frozen, validated value.

Each setting is taken from the first place that has it: the argument of ``TaskQ(...)``, the environment
(``TASKQ_LEASE=30``), ``[tool.taskq]`` in the nearest ``pyproject.toml``, the default.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from taskq.address import check_address, safe_url
from taskq.errors import ConfigError
from taskq.spelling import nearest

log = logging.getLogger("taskq")

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,200}")


#: The longest time span allowed, in seconds: about 300 years. The server could not write a date beyond it.
LONGEST = 1e10


def check_name(kind: str, name: object) -> str:
    """Return ``name`` if it may name an app, a task, a queue, a worker or an id.

    Raises:
        ConfigError: It is not 1 to 200 of the characters ``A-Z a-z 0-9 _ . : -``.
    """
    if isinstance(name, str) and NAME.fullmatch(name):
        return name
    raise ConfigError(f"{kind} {name!r:.80} is not a name: use 1 to 200 of the characters A-Z a-z 0-9 _ . : -")


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set for an app. All durations are seconds."""

    #: Server to use, ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://`` or ``unix://``; None: the embedded one.
    url: str | None = field(default=None, repr=False)  # it may have a password
    #: Seconds without a renewal after which a worker is presumed dead. Shorter recovers sooner, but a stall of
    #: the network of that length then makes work run twice. At least 1.
    lease: float = 15.0
    #: Seconds a result is kept. Too short, and ``get()`` finds nothing.
    result_ttl: float = 3600.0
    #: Deaths of its process after which a message is a dead letter. At least 1.
    max_crashes: int = 3
    #: Age in seconds beyond which a message whose worker died becomes a dead letter instead of running again.
    discard_after: float | None = None
    #: Seconds after which a message whose task no worker knows becomes a dead letter.
    unknown_after: float = 3600.0
    #: Seconds a dead letter is kept.
    dead_ttl: float = 30 * 86400.0
    #: Dead letters kept per queue; the oldest go first.
    dead_max: int = 100_000
    #: Largest message and largest result, in bytes. A worker does not read a larger one: it is a dead letter.
    max_message_bytes: int = 1 << 20
    #: Results are kept only while at most this share of the server's ``maxmemory`` is in use, up to 1; beyond it
    #: they only go to callers that wait. The rest is for messages: too large, and results leave ``delay()`` no room.
    result_memory: float = 0.9
    #: Seconds ``delay()`` keeps trying when the server does not answer.
    send_timeout: float = 5.0
    #: What a worker does at a server that may lose messages (it evicts them, or keeps nothing on disk): ``warn`` or
    #: ``refuse``.
    server_check: str = "warn"
    #: Name of the time zone of cron expressions for which none is given, such as ``Europe/Vienna``.
    timezone: str = "UTC"
    #: How many partitions the app has on its server, each with queues of its own: 1 to 4096, the same in every process.
    partitions: int = 1
    #: How a worker makes its child processes: ``fork``, ``forkserver`` or ``spawn``. Fork on Linux, spawn elsewhere.
    start_method: str = "fork" if sys.platform == "linux" else "spawn"

    def __post_init__(self) -> None:
        """Check every value against its range."""
        for name, low in _AT_LEAST.items():
            value = getattr(self, name)
            if value is None and name == "discard_after":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < float("inf"):
                raise ConfigError(f"setting {name} must be a number of at least {low:g}, not {value!r}")
        if self.result_memory > 1:
            raise ConfigError(f"setting result_memory must be a share, from 0 to 1, not {self.result_memory!r}")
        for name in ("max_crashes", "dead_max", "max_message_bytes", "partitions"):
            if not isinstance(getattr(self, name), int):
                raise ConfigError(f"setting {name} must be a whole number, not {getattr(self, name)!r}")
        if self.partitions > PARTITIONS:
            raise ConfigError(
                f"setting partitions must be a whole number from 1 to {PARTITIONS}, not {self.partitions}"
            )
        for name, allowed in _ONE_OF.items():
            if (value := getattr(self, name)) not in allowed:
                words = " or ".join(map(repr, allowed))
                raise ConfigError(f"setting {name} must be {words}, not {value!r}{nearest(str(value), allowed)}")
        _check_zone(self.timezone)
        if self.url is not None:
            if not isinstance(self.url, str):
                raise ConfigError(f"setting url must be a string, not {safe_url(repr(self.url))}")
            check_address(self.url)

    @property
    def lease_ms(self) -> int:
        """The lease in milliseconds."""
        return int(self.lease * 1000)


_AT_LEAST: dict[str, float] = {
    "lease": 1.0,
    "result_ttl": 0.001,
    "max_crashes": 1,
    "discard_after": 0.001,
    "unknown_after": 0,
    "dead_ttl": 1,
    "dead_max": 0,
    "max_message_bytes": 256,
    "result_memory": 0,
    "send_timeout": 0.001,
    "partitions": 1,
}
#: Partitions an app can have: an id has 12 bits for them.
PARTITIONS = 4096
#: How a worker may make its child processes.
START_METHODS = ("fork", "forkserver", "spawn")
_ONE_OF = {"server_check": ("warn", "refuse"), "start_method": START_METHODS}
_TEXTS = ("url", "timezone", *_ONE_OF)


def _check_zone(name: object) -> None:
    if name == "UTC":
        return
    from zoneinfo import ZoneInfo, available_timezones  # only for those who use it: it costs 5 ms

    try:
        ZoneInfo(name)  # type: ignore[arg-type]
    except (LookupError, ValueError, TypeError, OSError):
        hint = nearest(str(name), available_timezones())
        raise ConfigError(
            f"setting timezone must be the name of a time zone, such as 'Europe/Vienna', not {name!r:.80}{hint}; "
            "if it is one, this machine has no time zone data: pip install tzdata"
        ) from None


#: Variables of taskq that are not settings of an app, without ``TASKQ_``.
_OTHERS = {"app", "server"}
#: What Kubernetes and Docker make of a service named ``taskq``; what taskq's own tests use.
_NOT_OURS = re.compile(r"(\w+_)?service_|(\w+_)?port(_\w+)?$|name$|env_|test_|soak|seed$|model_")
#: A table of that name or nearly so, even with wrong brackets or quotes.
_SPEAKS_OF_TASKQ = re.compile(r"""^\s*(?:\[[^]\n]*)?[^#\n=]*\b(?i:taskq|tasqk|takq|taksq|tsakq|atskq)\b(?!-)""", re.M)
_warned: set[str] = set()


def load_settings(given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """Build the settings of an app from all their sources.

    Args:
        given: Arguments of ``TaskQ(...)``; None stands for "not given".
        environ: The environment; the process's own if None.

    Raises:
        ConfigError: An unknown setting, or a value outside its range, naming where it came from.
    """
    known = {f.name for f in fields(Settings)}
    if unknown := sorted(set(given) - known):
        hint = nearest(unknown[0], known)
        raise ConfigError(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}{hint}")
    values: dict[str, Any] = dict(_from_pyproject(known))
    sources = dict.fromkeys(values, "[tool.taskq] in pyproject.toml")
    environ = os.environ if environ is None else environ
    _warn_of_unknown(environ, known)
    for name in known:
        variable = f"TASKQ_{name.upper()}"
        if raw := environ.get(variable):
            values[name], sources[name] = raw if name in _TEXTS else _number(variable, raw), variable
    for name, value in given.items():
        if value is not None:
            values[name], sources[name] = value, "an argument"
    for name, value in values.items():
        try:
            Settings(**{name: value})
        except ConfigError as error:
            raise ConfigError(f"{error} (from {sources[name]})") from None
    return Settings(**values)


def _number(source: str, raw: str) -> int | float | None:
    try:
        return int(raw)
    except ValueError:
        pass
    try:
        return float(raw)
    except ValueError:
        raise ConfigError(f"{source}={raw!r} is not a number") from None


def whoami() -> str:
    """Return who runs this process, ``user@host``, as the author of what an operator does."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def project_dir() -> str:
    """Return the nearest folder, from the current one upwards, with a ``pyproject.toml``; else the current one."""
    folder = here = os.getcwd()
    while not os.path.isfile(os.path.join(folder, "pyproject.toml")):
        parent = os.path.dirname(folder)
        if parent == folder:
            return here
        folder = parent
    return folder


def _warn_of_unknown(environ: Mapping[str, str], known: set[str]) -> None:
    """Warn, once per process, of variables that look like settings but are not.

    Not an error: a newer version may know it, and Kubernetes makes variables of the names of services.
    """
    names = known | _OTHERS
    for variable in environ:
        name = variable.removeprefix("TASKQ_").lower()
        if (
            variable.startswith("TASKQ_")
            and name not in names
            and variable not in _warned
            and not _NOT_OURS.match(name)
        ):
            _warned.add(variable)
            hint = nearest(name, names, lambda found: f"TASKQ_{found.upper()}")
            log.warning("the variable %s is not a setting of taskq and is ignored%s", variable, hint)


def _from_pyproject(known: set[str]) -> dict[str, Any]:
    path = os.path.join(project_dir(), "pyproject.toml")
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if "\0" in text:
        raise ConfigError(f"{path} cannot be read: it is not written in UTF-8")
    if not _SPEAKS_OF_TASKQ.search(text):
        return {}
    import tomllib  # only for projects that use it: it costs 10 ms

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    tool = document.get("tool", {})
    for where, table in (("", document), ("tool.", tool)):
        for name in table:
            if sorted(name.lower()) == sorted("taskq") and where + name != "tool.taskq" and path not in _warned:
                _warned.add(path)
                log.warning("[%s%s] in %s is ignored; did you mean [tool.taskq]?", where, name, path)
    settings = tool.get("taskq", {})
    if not isinstance(settings, dict):
        raise ConfigError(f"[tool.taskq] of {path} must be a table of settings, not {settings!r:.80}")
    if unknown := sorted(set(settings) - known):
        raise ConfigError(
            f"unknown setting in [tool.taskq] of {path}: {', '.join(unknown)}{nearest(unknown[0], known)}"
        )
    return settings
