"""Logs without the text of any request: readable lines on a terminal, else JSON lines."""

import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Literal, TextIO

import structlog

# The logger of the message `ready`, which says that the service accepts requests.
READY = "l2v.ready"


def outline(error: BaseException) -> dict[str, Any]:
    """The type and the last stack frames of an error, without its message, which may quote a text or a key."""
    frames = [
        f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    return {"error": type(error).__name__, "frames": frames[-8:]}


def _clean(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Removes uvicorn's coloured copy of its messages, and replaces logged errors with their outlines."""
    event.pop("color_message", None)
    caught = event.pop("exc_info", None)
    error = caught[1] if isinstance(caught, tuple) else caught
    if isinstance(error, BaseException):
        event.update(outline(error))
    return event


def _for_people(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Removes the logger's name, empty fields and fields that the message repeats; puts the message on one line."""
    for repeated in ("logger", "stage", "bytes", "total_bytes"):
        event.pop(repeated, None)
    shown = {key: value for key, value in event.items() if value not in (None, "")}
    return shown | {"event": " ".join(str(event["event"]).split())}


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`, which a progress bar replaces so that lines appear above the bar."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def configure_logging(level: str, format_: Literal["auto", "text", "json"] = "auto") -> None:
    """Sends all log messages, including those of uvicorn and other libraries, to standard error.

    Args:
        level: the minimum level. The message `ready` is logged even if the level is `warning`.
        format_: `text`, `json`, or `auto`: text on a terminal, else JSON.
    """
    on_terminal = sys.stderr.isatty()
    text = format_ == "text" or (format_ == "auto" and on_terminal)
    colors = on_terminal and not os.environ.get("NO_COLOR")
    render: list[Any] = [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer()]
    if text:
        render = [_for_people, structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0)]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.ExtraAdder(),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text),
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _clean, *render],
    )
    handler = _Stderr()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    if level == "warning":
        logging.getLogger(READY).setLevel(logging.INFO)
    for noisy in ("httpx", "httpx2", "httpcore", "filelock", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
