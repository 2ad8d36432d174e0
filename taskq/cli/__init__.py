"""The ``taskq`` command: one module a sub-command, imported when it is called.

Packages may add commands under the entry point group ``taskq.commands``.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

_COMMANDS = {
    "worker": "Run the tasks of an app.",
    "reaper": "Bring back what lost workers held, and promote what is due.",
    "queues": "Show what there is in every queue.",
    "why": "Say in one sentence why a message does not run.",
    "pause": "Let nothing more be taken from a queue, or of a task.",
    "resume": "Let it be taken again.",
    "revoke": "Let messages not run, or run no longer.",
    "limit": "Show or set the limits of a task.",
    "dead": "Look at, replay or purge dead letters.",
    "cron": "Look at and change periodic entries.",
    "demo": "A mail-out with a worker killed half-way; nothing to set up.",
    "chaos": "Break everything for a minute, and prove that nothing is lost.",
}
_GROUP = "taskq.commands"


class _Lazy(click.Group):
    """A group whose commands are imported when they are called, so that ``taskq --help`` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *sorted(_plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            module = importlib.import_module(f"taskq.cli.{cmd_name}")
            return module.command  # type: ignore[no-any-return]
        plugin = _plugins().get(cmd_name)
        return None if plugin is None else plugin.load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            *_COMMANDS.items(),
            *((name, f"from {p.dist.name if p.dist else '?'}") for name, p in _plugins().items()),
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _plugins() -> dict[str, Any]:
    from importlib_metadata import entry_points

    return {point.name: point for point in entry_points(group=_GROUP) if point.name not in _COMMANDS}


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib_metadata import version

        click.echo(f"taskq {version('taskq-redis')}")
        ctx.exit()


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def main() -> None:
    """Tasks on Redis and Valkey: nothing lost."""
