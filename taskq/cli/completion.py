"""``taskq completion``: the script that lets a shell complete commands, options and values."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    r"""Print the completion of taskq for a shell.

    \b
    bash, in ~/.bashrc:    eval "$(taskq completion bash)"
    zsh, in ~/.zshrc:      eval "$(taskq completion zsh)"
    fish, once:            taskq completion fish > ~/.config/fish/completions/taskq.fish
    """
    from click.shell_completion import get_completion_class

    from taskq.cli import main

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "taskq", "_TASKQ_COMPLETE").source())
