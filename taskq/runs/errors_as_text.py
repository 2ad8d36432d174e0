"""Errors of tasks as text: bounded, whatever their classes do, without the frames that are not the task's."""

from __future__ import annotations

from types import TracebackType

_MESSAGE_MAX = 4096


_TRACEBACK_MAX = 32768


def type_name(error: BaseException) -> str:
    """Return the name of an exception's class: bare for builtins, else with its module."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def safe_text(error: BaseException) -> str:
    """Return ``str(error)``, cut to 4 kB, whatever its ``__str__`` does."""
    try:
        text = str(error)
    except BaseException as bug:
        text = f"<{type(error).__name__} whose __str__ raised {type(bug).__name__}>"
    return text[:_MESSAGE_MAX].encode("utf-8", "backslashreplace").decode()


def forget_frames(error: BaseException | None) -> None:
    """Let go of what a failed task held: its frames, and those of the policy's, lead to the error and back."""
    while error is not None and error.__traceback__ is not None:
        error.with_traceback(None)
        error = error.__cause__ or error.__context__


def own_frames(error: BaseException) -> TracebackType | None:
    """Return the traceback from the task's own frame on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("taskq."):
        frames = frames.tb_next
    return frames


def format_error(error: BaseException) -> str:
    """Return the traceback as text, from the task's own frame on, at most 32 kB (its end)."""
    import traceback  # only for those that fail

    try:
        text = "".join(traceback.format_exception(type(error), error, own_frames(error), limit=-50))
    except BaseException:
        text = f"{type_name(error)}: {safe_text(error)}\n(its traceback cannot be formatted)"
    return text[-_TRACEBACK_MAX:].encode("utf-8", "backslashreplace").decode()
