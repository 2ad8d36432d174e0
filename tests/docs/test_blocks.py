"""Every fenced block of the documentation is run, or at least understood."""

from __future__ import annotations

import codeop
import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskq import TaskQ
from tests.docs import pages
from tests.docs.pages import Block
from tests.support import Server, Worker, wait_until

ALL = [block for page in pages.all_pages() for block in pages.blocks_of(page)]
_RUNNABLE = ("file", "worker", "log", "run", "output")


def _is_run(block: Block) -> bool:
    return block.word != "not run" and (block.language == "python" or block.word in _RUNNABLE)


RUN = [page for page in pages.all_pages() if any(_is_run(block) for block in pages.blocks_of(page))]

StartWorker = Callable[..., Worker]


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.place)
def test_a_block_is_well_formed(block: Block) -> None:
    pages.check(block)


@pytest.mark.parametrize("block", [b for b in ALL if b.word == "not run"], ids=lambda block: block.place)
def test_a_block_that_is_not_run_says_why(block: Block) -> None:
    assert len(block.text) > 8


TYPED = [block for block in ALL if block.page.name == "tutorial.md" and (block.language, block.word) == ("python", "")]


@pytest.mark.parametrize("block", TYPED, ids=lambda block: block.place)
def test_what_the_tutorial_lets_people_type_can_be_pasted_into_python(block: Block) -> None:
    """The prompt ends an indented block at an empty line, and at nothing else."""
    typed = ""
    for line in [*block.code.splitlines(), ""]:
        typed += line + "\n"
        if codeop.compile_command(typed, symbol="single") is not None:
            typed = ""

    assert not typed.strip()


class Page:
    """A page being run: its folder, its server, the names its Python blocks share."""

    def __init__(self, folder: Path, server: Server, start_worker: StartWorker) -> None:
        self.folder = folder
        self.server = server
        self.names: dict[str, Any] = {"__name__": "page"}
        self.printed = ""
        self._start_worker = start_worker
        self._worker: Worker | None = None

    def run(self, block: Block) -> None:
        match block:
            case Block(word="not run"):
                pass
            case Block(word="file"):
                path = self.folder / block.text
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.code)
            case Block(word="output"):
                self._expect(block.place, block.code, self.printed)
            case Block(word="log"):
                self._expect_in_log(block)
            case Block(word="worker"):
                self._run_worker(block)
            case Block(language="python"):
                self._run_python(block)
            case Block(word="run"):
                self._run_commands(block)

    def _run_python(self, block: Block) -> None:
        code = compile("\n" * (block.line - 1) + block.code, str(block.page), "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, self.names)
        self.printed = printed.getvalue()

    def _run_commands(self, block: Block) -> None:
        bin_folder = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        commands = pages.shell_commands(block)
        done = subprocess.run(
            ["bash", "-ec", "\n".join(commands)],
            cwd=self.folder, env={**os.environ, "PATH": bin_folder, "COLUMNS": "200"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30,
        )  # fmt: skip
        self.printed = done.stdout
        assert done.returncode == 0, f"{block.place}: {done.stdout}"
        if block.language == "console" and pages.expected_output(block).strip():
            self._expect(block.place, pages.expected_output(block), done.stdout)

    def _run_worker(self, block: Block) -> None:
        """Start the worker the block shows; the one before it is stopped first."""
        self.stop_worker()
        arguments = next(a for a in pages.commands_in(block) if a[0] == "worker")
        options = arguments[1:]
        at = next(i for i, word in enumerate(options) if word in ("-A", "--app"))
        module = options.pop(at + 1)
        options.pop(at)
        if "-c" not in options:
            options += ["-c", "1"]
        self._worker = self._start_worker(*options, url=self.server.url, module=module)

    def stop_worker(self) -> None:
        if self._worker is not None:
            assert self._worker.stop() == 0, self._worker.log
            self._worker = None

    def _expect_in_log(self, block: Block) -> None:
        """Find each line of the block in the worker's log; it may still be on its way."""
        worker = self._worker
        assert worker is not None
        for line in block.code.splitlines():
            pattern = re.compile(".*".join(map(re.escape, line.split("..."))))
            wait_until(lambda pattern=pattern: pattern.search(worker.log), f"{line!r} in the log (of {block.place})")

    @staticmethod
    def _expect(place: str, wanted: str, got: str) -> None:
        """Compare lines without their trailing spaces; ``...`` stands for anything."""

        def tidy(text: str) -> str:
            return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"

        same = doctest.OutputChecker().check_output(tidy(wanted), tidy(got), doctest.ELLIPSIS)
        assert same, f"{place} shows\n{wanted}\nbut it is\n{got}"


@pytest.fixture
def page(
    tmp_path: Path, own_server: Server, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Page]:
    """A page about to run in a folder of its own, on a server of its own, with modules of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TASKQ_URL", own_server.url)
    before = set(sys.modules)
    running = Page(tmp_path, own_server, start_worker)
    yield running
    names = list(running.names.values())
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            names += vars(sys.modules.pop(name)).values()
    for app in {id(value): value for value in names if isinstance(value, TaskQ)}.values():
        app.client.broker.close()


@pytest.mark.parametrize("path", RUN, ids=pages.name_of)
def test_a_page_does_what_it_says(path: Path, page: Page) -> None:
    """Its blocks run in order and print what they are said to print."""
    for block in pages.blocks_of(path):
        page.run(block)
    page.stop_worker()
