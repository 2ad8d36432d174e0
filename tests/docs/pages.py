"""Reading pages: their fenced blocks, what the comment before each says of it, and the commands in them.

The comments are described in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import configparser
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from taskq.cli import main

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w+-]*)(?P<rest>[^`]*)$")
_COMMENT = re.compile(r"^\s*<!-- (?P<word>file|worker|log|not run|run|output)(?:: (?P<text>.*?))? -->\s*$")
#: Words after which a line is a command of taskq.
_PROGRAM = re.compile(r"(?:^|[\s/;&|(])taskq(?P<rest>(?: .*)?)$")
_OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def all_pages() -> list[Path]:
    """Every page whose blocks are checked."""
    return [ROOT / name for name in _OUTSIDE] + sorted((ROOT / "docs").rglob("*.md"))


def name_of(page: Path) -> str:
    """The page as people call it."""
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, in which language, and what its comment says (``word``, ``text``)."""

    page: Path
    line: int
    language: str
    code: str
    word: str = ""
    text: str = ""

    @property
    def place(self) -> str:
        """Page and line, as editors read it."""
        return f"{name_of(self.page)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    lines, found, at = page.read_text().splitlines(), [], 0
    comment: re.Match[str] | None = None
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if fence is None:
            if lines[at].strip():
                comment = _COMMENT.match(lines[at])
            at += 1
            continue
        first = at + 1
        at = first
        while lines[at].strip() != fence["ticks"]:
            at += 1
        code = "\n".join(line.removeprefix(fence["indent"]) for line in lines[first:at]) + "\n"
        word, text = (comment["word"], comment["text"] or "") if comment else ("", "")
        found.append(Block(page, first + 1, fence["language"], code, word, text))
        comment = None
        at += 1
    return found


# -- commands ---------------------------------------------------------------------------------------------------


def shell_commands(block: Block) -> list[str]:
    """The command lines of a shell block; in a ``console`` one those after ``$ ``, with their continuations."""
    text = block.code.replace("\\\n", " ")
    lines = text.splitlines()
    if block.language == "console":
        return [line[2:] for line in lines if line.startswith("$ ")]
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def expected_output(block: Block) -> str:
    """What a ``console`` block shows below its commands."""
    return "\n".join(line for line in block.code.splitlines() if not line.startswith("$ "))


def taskq_arguments(command: str) -> list[str] | None:
    """The arguments of the last ``taskq`` in a command line; None if it has none."""
    found = _PROGRAM.search(command.split(" #")[0].rstrip())
    return None if found is None else shlex.split(re.split(r" (?:[|&;>]|2>)", found["rest"])[0])


def commands_in(block: Block) -> Iterator[list[str]]:
    """Every call of ``taskq`` in a block, whatever its language."""
    match block.language:
        case "console" | "bash" | "sh":
            lines = shell_commands(block)
        case "ini":
            lines = re.findall(r"^Exec\w+=(.*)$", block.code, re.MULTILINE)
        case "dockerfile":
            lines = [shlex.join(json.loads(words)) for words in re.findall(r"^CMD (\[.*\])$", block.code, re.MULTILINE)]
        case "yaml":
            lines = [
                shlex.join(json.loads(words))
                for words in re.findall(r"\b(?:command|args): (\[.*\])$", block.code, re.MULTILINE)
            ]
        case _:
            lines = []
    for line in lines:
        if (arguments := taskq_arguments(line)) is not None:
            yield arguments


def check_command(arguments: list[str]) -> None:
    """Fail unless ``taskq`` with these arguments would be understood; nothing is run."""
    command: click.Command = main
    context: click.Context | None = None
    name: str | None = "taskq"
    try:
        while True:
            context = command.make_context(name, arguments, parent=context)
            if not isinstance(command, click.Group):
                return
            # click 8.1 calls it protected_args, 8.2 warns of that name
            first = vars(context).get("_protected_args") or vars(context).get("protected_args") or []
            rest = [*first, *context.args]
            if not rest:
                return
            name, found, arguments = command.resolve_command(context, rest)
            assert found is not None
            command = found
    except click.exceptions.Exit as end:  # --help and the like
        if end.exit_code != 0:
            raise


# -- everything that can be checked without running it -------------------------------------------------------


def check(block: Block) -> None:
    """Fail if the block is not well-formed in its language, or calls ``taskq`` in a way it does not know."""
    match block.language:
        case "python":
            ast.parse(block.code)
        case "toml":
            tomllib.loads(block.code)
        case "yaml":
            _parse_yaml(block.code)
        case "ini":
            configparser.ConfigParser(strict=False, interpolation=None).read_string(block.code)
        case "bash" | "sh" | "console":
            script = "\n".join(shell_commands(block))
            assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
        case "text" | "dockerfile":
            pass
        case other:
            raise AssertionError(f"no check for blocks of language {other!r}; see CONTRIBUTING.md")
    for arguments in commands_in(block):
        check_command(arguments)


def _parse_yaml(text: str) -> None:
    try:
        import yaml
    except ImportError:  # it comes with the tools of the documentation, not with those of the tests
        return
    yaml.safe_load(text)
