"""Draws ``docs/demo.svg``, the picture in the README, from a real run of ``taskq demo``: ``python docs/picture.py``."""

from __future__ import annotations

import io
import re
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from taskq.broker.net.embedded import embedded_url
from taskq.showcase import demo, example

PICTURE = Path(__file__).with_name("demo.svg")


class Recorder(Console):
    """Records what the demo prints, without what is only so on this machine."""

    def __init__(self, *paths: tuple[str, str]) -> None:
        super().__init__(record=True, file=io.StringIO(), width=96, color_system="truecolor")
        self._paths = paths

    def print(self, *objects: Any, **options: Any) -> None:
        said = []
        for one in objects:
            for path, name in self._paths:
                one = one.replace(path, name) if isinstance(one, str) else one
            said.append(one)
        super().print(*said, **options)


def draw() -> None:
    """Run the demo on a server of its own, and save what it shows."""
    with tempfile.TemporaryDirectory() as folder:
        url = embedded_url(Path(folder))
        console = Recorder((str(example.folder()), "examples/mailer"), (url, "unix://.taskq/taskq.sock"))
        console.print("[bold]$[/] taskq demo")
        demo.show(demo.MailOut(url, 400, console).run(), console, ["taskq", "dead", "show"])
    svg = console.export_svg(title="taskq demo", clear=False)
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # which would ask another host for a font
    PICTURE.write_text(svg.replace("Fira Code", "ui-monospace, Menlo, Consolas"))


if __name__ == "__main__":
    draw()
