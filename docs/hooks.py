"""What mkdocs does to the pages beside rendering them."""

from __future__ import annotations

import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """Make of docstrings what they mean.

    Drops the lone ``::`` that introduces an example; gives each of a list of options a line of its own.
    """
    html = html.replace("<p>::</p>\n", "").replace("::</p>", ":</p>")
    return re.sub(r"\n(<code>\w+</code>(?:, <code>\w+</code>)* \()", r"<br>\n\1", html)
