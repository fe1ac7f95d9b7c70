"""Logs: JSON lines, without any text of a request."""

import logging
import sys
import traceback
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import structlog


def outline(error: BaseException) -> dict[str, Any]:
    """An error without its message, which may quote a text or a key, and without the folders of this machine."""
    frames = [
        f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    return {"error": type(error).__name__, "frames": frames[-8:]}


def _tidy(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drops the second, coloured form of its messages that uvicorn adds, and the messages of logged errors."""
    event.pop("color_message", None)
    caught = event.pop("exc_info", None)
    if caught:
        error = caught[1] if isinstance(caught, tuple) else caught
        event.update(outline(error) if isinstance(error, BaseException) else {})
    return event


def configure_logging(level: str) -> None:
    """JSON lines on standard error for everything that logs, uvicorn and the libraries among them."""
    shared: list[Callable[[Any, str, MutableMapping[str, Any]], Any]] = [
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _tidy,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for noisy in ("httpx", "httpx2", "httpcore", "filelock", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
