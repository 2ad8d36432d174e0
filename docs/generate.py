"""Writes the reference pages that are made from the code: ``python docs/generate.py``.

They are kept in the repository, so that they can be read there; a test fails when one is out of date.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import click

import taskq
import taskq.broker.keys
import taskq.config
import taskq.errors
import taskq.tasks.options as table
from taskq.cli import main
from taskq.tasks.definition import Definition
from taskq.tasks.flow import Flow
from taskq.tasks.hooks import OPTIONS as HOOK_OPTIONS
from taskq.tasks.retry_options import RetryOptions

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
_NOTE = "<!-- Made by `python docs/generate.py`. Change the code instead. -->\n\n"


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    made = {
        "api.md": api(),
        "cli.md": cli(),
        "config.md": config(),
        "errors.md": errors(),
        "keys.md": keys(),
        "lua.md": lua(),
        "options.md": options(),
    }
    return {name: _NOTE + text.strip() + "\n" for name, text in made.items()}


# -- the API --------------------------------------------------------------------------------------------------

#: Which module's names come under which heading; errors have a page of their own.
_SECTIONS = {
    "taskq.app": "The app",
    "taskq.calls.task": "Tasks",
    "taskq.tasks.limits": "Tasks",
    "taskq.calls.sending": "Tasks",
    "taskq.calls.outgoing": "Tasks",
    "taskq.runs.asking": "Inside a task",
    "taskq.runs.context": "Inside a task",
    "taskq.runs.logs": "Inside a task",
    "taskq.calls.result": "Results",
    "taskq.views.messages": "Results",
    "taskq.periodic.schedule": "Periodic entries",
}


def api() -> str:
    """What can be imported from ``taskq``; mkdocstrings puts the docstrings in."""
    names: dict[str, list[str]] = {heading: [] for heading in _SECTIONS.values()}
    for name in taskq.__all__:
        module = getattr(taskq, name).__module__
        if module != "taskq.errors":
            names[_SECTIONS[module]].append(name)
    parts = [_API_HEAD]
    for heading, members in names.items():
        parts += [f"## {heading}", *(f"::: taskq.{name}{_INHERITS.get(name, '')}" for name in members)]
    parts.insert(
        parts.index("## Inside a task"), "::: taskq.tasks.definition.Definition\n    options:\n      members: false"
    )
    return "\n\n".join(parts)


#: What has methods of a base class that users know as its own.
_INHERITS = {"TaskQ": "\n    options:\n      inherited_members: true"}

_DEFINITION = "::: taskq.tasks.definition.Definition\n    options:\n      members: false"

_API_HEAD = """# API

What can be imported from `taskq`. [Options](options.md) of tasks and calls, [errors](errors.md) and
[settings](config.md) have pages of their own. Every task is also a `Definition`."""


# -- the command line -----------------------------------------------------------------------------------------


def cli() -> str:
    """What ``--help`` says of every command."""
    parts = [
        "# Command line",
        "What `taskq COMMAND --help` says. Packages can add commands of their own under the entry point group "
        "`taskq.commands`.",
    ]
    root = click.Context(main, info_name="taskq")
    for context in _contexts(main, root):
        level = "##" if context is root else "##" + "#" * (context.command_path.count(" ") - 1)
        shown = click.Context(
            context.command,
            info_name=context.command_path,
            terminal_width=96,
            max_content_width=96,
            help_option_names=main.context_settings["help_option_names"],
        )
        parts.append(f"{level} {context.command_path}\n\n```text\n{_help(context.command, shown)}\n```")
    return "\n\n".join(parts)


def _help(command: click.Command, context: click.Context) -> str:
    text = command.get_help(context)
    if command is main:  # plug-ins that happen to be installed are not ours to document
        text = "\n".join(line for line in text.splitlines() if not re.match(r"  \S+\s+from \S+$", line))
    return "\n".join(line.rstrip() for line in text.splitlines())


def _contexts(command: click.Command, context: click.Context) -> list[click.Context]:
    found = [context]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden and child.callback.__module__.startswith("taskq."):
                found += _contexts(child, click.Context(child, parent=context, info_name=name))
    return found


# -- settings -------------------------------------------------------------------------------------------------


def config() -> str:
    """Every field of ``Settings``: its default, its range, what its comment says."""
    rows = ["| setting | environment | default | at least | meaning |", "| --- | --- | --- | --- | --- |"]
    lows: dict[str, Any] = taskq.config._AT_LEAST
    for name, default, comment in _settings():
        low = f"{lows[name]:g}" if name in lows else ""
        rows.append(f"| `{name}` | `TASKQ_{name.upper()}` | {_default(default)} | {low} | {comment} |")
    return "\n".join([_CONFIG_HEAD, *rows, _CONFIG_TAIL])


def _settings() -> list[tuple[str, Any, str]]:
    source = inspect.getsource(taskq.config.Settings)
    found = re.findall(r"((?:^    #: .*\n|^    # .*\n)+)    (\w+): .* = (.*)$", source, re.MULTILINE)
    fields = taskq.config.Settings.__dataclass_fields__
    assert [name for _, name, _ in found] == list(fields), "each setting has a `#:` comment above it"
    return [
        (name, fields[name].default, re.sub(r"\s*#:? ", " ", comment).strip().replace("``", "`"))
        for comment, name, _ in found
    ]


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return f"`{value}`"
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


_CONFIG_HEAD = """# Settings

A setting is taken from the first place that has it:

1. the argument of `TaskQ(...)`,
2. the environment, as `TASKQ_` and its name in capitals,
3. `[tool.taskq]` in the `pyproject.toml` of the current folder, or of the nearest folder above it that has one,
4. its default.

All durations are seconds. A value outside its range, or a setting that does not exist, is a `ConfigError`.
"""

_CONFIG_TAIL = """
In `pyproject.toml`:

```toml
[tool.taskq]
url = "redis://localhost:6379/0"
lease = 30
```

The windows and limits that scripts go by (`lease`, `result_ttl`, `max_crashes`, `discard_after`, `dead_ttl`,
`dead_max`) are written to the server when a worker starts, so that `taskq reaper` needs neither the app nor your code.
The worker that started last has the say.

## Other variables

| variable | meaning |
| --- | --- |
| `TASKQ_APP` | What `taskq worker -A` is if it is not given. |
| `TASKQ_SERVER` | Path of the server program for the embedded server, instead of the one that is found. |
"""


# -- options --------------------------------------------------------------------------------------------------


def options() -> str:
    """The table of ``taskq.tasks.options``, with the defaults that hold at run time."""
    fields, titles = _fields()
    defaults = option_defaults()
    parts = [_OPTIONS_HEAD, "## Of a task"]
    for title, classes in (
        ("Running", ["BoundTaskOptions", "Running"]), ("Turns", ["Turns"]), ("Retries", ["Retries", "CeleryRetries"]),
        ("Installed", ["Installed"]),
    ):  # fmt: skip
        rows = [
            f"| `{name}` | {kind} | {_option_default(defaults[name])} | {meaning} |"
            for cls in classes
            for name, kind, meaning in fields[cls]
        ]
        head = "| option | type | default | meaning |\n| --- | --- | --- | --- |"
        parts += [f"### {titles[title]}", "\n".join([head, *rows])]
    rows = [
        f"| `{name}` | {kind} | {meaning} |"
        for cls in ("CallOptions", "Tick", "CeleryRetries")
        for name, kind, meaning in fields[cls]
    ]
    parts += [_OPTIONS_OF_CALLS, "\n".join(["| option | type | meaning |\n| --- | --- | --- |", *rows]), _OPTIONS_TAIL]
    return "\n\n".join(parts)


def option_defaults() -> dict[str, Any]:
    """Return what holds for each option of a task that is not given, by the classes that take it."""
    own = inspect.signature(Definition).parameters.values()
    return {
        **{p.name: p.default for p in own if p.kind is p.KEYWORD_ONLY and p.name not in ("retry", "flow", "hooks")},
        **dict.fromkeys(HOOK_OPTIONS),
        **{
            name: field.default
            for cls in (Flow, RetryOptions)
            for name, field in cls.__dataclass_fields__.items()
        },
    }  # fmt: skip


def _fields() -> tuple[dict[str, list[tuple[str, str, str]]], dict[str, str]]:
    """Read the classes of the table: name, type and meaning of each option; and what each class is about."""
    fields: dict[str, list[tuple[str, str, str]]] = {}
    titles: dict[str, str] = {}
    for cls in ast.parse(inspect.getsource(table)).body:
        if not isinstance(cls, ast.ClassDef):
            continue
        titles[cls.name] = (ast.get_docstring(cls) or "").partition("\n")[0].removesuffix(".")
        rows = fields[cls.name] = []
        for field, text in zip(cls.body, cls.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                assert isinstance(text, ast.Expr), f"{cls.name}.{field.target.id} has a docstring below it"
                assert isinstance(text.value, ast.Constant), f"{cls.name}.{field.target.id} has a docstring below it"
                meaning = " ".join(str(text.value.value).replace("``", "`").split())
                rows.append((field.target.id, _kind(field.annotation), meaning.replace("|", "\\|")))
    return fields, titles


#: What types are called on the page.
_KINDS = {
    "Key": "name of an argument or function",
    "Callable[..., float]": "function",
    "Retry": "tenacity's object, or function",
    "Wait": "tenacity's object, or function",
    "Stop": "tenacity's object, or function",
    "BeforeSleep": "function",
    "Sequence[Limit]": "list of `Limit`",
    "type[BaseException]": "exception class",
    "Collection[type[BaseException]]": "several of them",
    "Mapping[str, Any]": "map",
    "Function": "function",
    "Sequence[Function]": "list of them",
    "None": "`None`",
}


def _kind(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.BinOp):
        return f"{_kind(annotation.left)} or {_kind(annotation.right)}"
    text = ast.unparse(annotation)
    if literal := re.fullmatch(r"(?:Required\[)?Literal\[([^\]]+)\]+", text):
        return " or ".join(f"`{value}`" for value in literal[1].split(", "))
    return _KINDS.get(text, f"`{text}`")


def _option_default(value: Any) -> str:
    return "" if value is None or value == () else f"`{value!r}`"


_OPTIONS_HEAD = """# Options

What `@app.task(...)` and calls take. All times are seconds. An option that does not exist, or a value that cannot work,
is a `ConfigError` where the task is declared or called; type checkers find most of these before, by the classes of
`taskq.tasks.options`, from which this page is made."""

_OPTIONS_OF_CALLS = """## Of a call

For `apply_async(args, kwargs, ...)`, its twin `aapply_async`, `prepare_call` and `apply`. If an option is not given,
the task decides."""

_OPTIONS_TAIL = """`app.periodic(...)` takes the same for the calls that it sends, except `countdown`, `eta` and
`task_id`, which each tick sets itself; `expires` is in seconds from the tick.

## In functions of your own

A function that passes options on says so by the same classes:

```python
from typing import Unpack

from taskq import TaskQ
from taskq.tasks.options import CallOptions

app = TaskQ("shop")


@app.task
def remind(address: str) -> None: ...


def remind_all(addresses: list[str], **options: Unpack[CallOptions]) -> None:
    for address in addresses:
        remind.apply_async((address,), **options)
```"""


# -- errors ---------------------------------------------------------------------------------------------------


def errors() -> str:
    """The tree of ``taskq.errors``, then each class."""
    tree = re.search(r"::\n\n(.*?)\n\n", inspect.getdoc(taskq.errors) or "", re.DOTALL)
    assert tree is not None
    lines = [line.removeprefix("    ").replace("``", "") for line in tree[1].splitlines()]
    classes = [node.name for node in ast.parse(inspect.getsource(taskq.errors)).body if isinstance(node, ast.ClassDef)]
    parts = [_ERRORS_HEAD, "```text\n" + "\n".join(lines) + "\n```"]
    parts += [f"::: taskq.errors.{name}" for name in classes]
    return "\n\n".join(parts)


_ERRORS_HEAD = """# Errors

Every error that taskq raises, in one tree. The names can be imported from `taskq.errors`; those that a caller usually
meets can also be imported from `taskq`. Errors of the client library never escape: they are translated where they
occur."""


# -- keys and scripts -----------------------------------------------------------------------------------------


def keys() -> str:
    """The table in the docstring of ``taskq.broker.keys``."""
    doc = inspect.getdoc(taskq.broker.keys) or ""
    intro, table = re.split(r"^=+  .*$", doc, maxsplit=1, flags=re.MULTILINE)
    rows = []
    for line in table.splitlines():
        if cells := re.match(r"(\S.*?)\s{2,}(\S.*?)\s{2,}(\S.*)", line):
            if not line.startswith("="):
                rows.append(list(cells.groups()))
        elif line.startswith(" ") and rows:
            rows[-1][2] += " " + line.strip()
    lines = [f"| `{key}` | {kind} | {_cell(text)} |" for key, kind, text in rows[1:]]
    head = "| key | type | holds |\n| --- | --- | --- |"
    first, _, rest = intro.partition("\n")
    body = f"{first}\n{rest}".strip().replace("``", "`")
    return f"# Keys on the server\n\n{body}\n\n{head}\n" + "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def lua() -> str:
    """The header of each script."""
    parts = [_LUA_HEAD]
    folder = ROOT / "taskq" / "broker" / "lua"
    for path in sorted(folder.glob("*.lua")):
        parts.append(f"## {path.stem}\n\n```text\n{_header(path)}\n```")
    parts.append(_LUA_PARTS)
    for path in sorted((folder / "lib").glob("*.lua")):
        parts.append(f"### lib/{path.stem}\n\n```text\n{_header(path)}\n```")
    return "\n\n".join(parts)


def _header(path: Path) -> str:
    lines = []
    for line in path.read_text().splitlines():
        if line.startswith("--@"):
            continue
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").removeprefix(" "))
    return "\n".join(lines).strip()


_LUA_HEAD = """# Lua scripts

Every move of a message is one of these Lua scripts, so it happens wholly or not at all. The files are in
`taskq/broker/lua/`; this page shows the contract at the head of each. `KEYS[1]` is always the prefix of the
partition (see [keys](keys.md)); "Again" says what a second call with the same arguments does.

All checks come before the first write, and every script but those that accept messages (`enqueue`, and `tick` when it
sends) begins its writes with a `DEL` or `HDEL`: over `maxmemory` such a script goes on to its end, so a full server
can be drained. No script decodes msgpack: the msgpack libraries of the servers do not give every value back as it
was."""

_LUA_PARTS = """## Shared parts

Included into scripts by a line `--@include name`."""


if __name__ == "__main__":
    for name, text in pages().items():
        (REFERENCE / name).write_text(text)
        print(f"docs/reference/{name}", file=sys.stderr)
