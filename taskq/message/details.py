"""What is kept of an error, in a result or a dead letter."""

from __future__ import annotations

from typing import Any

import msgpack

from taskq.errors import DecodeError
from taskq.message import codec


def error_detail(type_name: str, message: str, traceback: str = "", **more: Any) -> bytes:
    """Write what is known of an error, for a result or a dead letter."""
    return bytes(msgpack.packb({"type": type_name, "message": message, "traceback": traceback, **more}))


def read_error_detail(data: bytes) -> dict[str, Any]:
    """Read what `error_detail` wrote; unreadable bytes give an empty traceback and say so."""
    try:
        detail = codec.read(data) if data else {}
    except DecodeError:
        detail = {"message": "the detail cannot be read"}
    detail = detail if isinstance(detail, dict) else {}
    return {"type": "", "message": "", "traceback": "", **detail}
