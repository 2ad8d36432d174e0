"""What mkdocs does to the pages beside rendering them."""

from __future__ import annotations

import html as markup
import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """Make of docstrings what they mean.

    Drops the lone ``::`` that introduces an example; gives each of a list of options a line of its own. Tells the copy
    button what to copy.
    """
    html = html.replace("<p>::</p>\n", "").replace("::</p>", ":</p>")
    html = re.sub(r'<div class="highlight">.*?</div>', _with_commands, html, flags=re.DOTALL)
    return re.sub(r"\n(<code>\w+</code>(?:, <code>\w+</code>)* \()", r"<br>\n\1", html)


def _with_commands(block: re.Match[str]) -> str:
    """Let the copy button take the commands of a console block, without their ``$ `` and what they printed."""
    if '<span class="gp">' not in block[0]:  # not a console
        return block[0]
    lines = markup.unescape(re.sub(r"<[^>]+>", "", block[0])).splitlines()
    commands, goes_on = [], False
    for line in lines:
        if goes_on or line.startswith("$ "):
            commands.append(line if goes_on else line[2:])
            goes_on = line.endswith("\\")
    text = markup.escape("\n".join(commands)).replace("\n", "&#10;")
    return block[0].replace('<div class="', f'<div data-copy="{text}" class="', 1)
