"""Decides from which sources adapters may be loaded while the service runs."""

import re
from pathlib import Path

from l2v.app.engine.errors import InvalidError
from l2v.app.settings import Settings

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w-][\w./-]*)?")


def find_source(path: str, settings: Settings) -> str:
    """The source that a request names for an adapter: a folder below `runtime_adapters`, or a Hub id if allowed.

    Links are resolved first. Neither the folder nor its files may be links that lead out of `runtime_adapters`.

    Raises:
        InvalidError: if `path` is neither such a folder nor an allowed Hub id.
    """
    assert settings.runtime_adapters is not None  # without this setting, the endpoint does not exist
    root = settings.runtime_adapters.resolve()
    try:
        folder = (root / path).resolve()
        if folder.is_dir() and root in folder.parents:
            if outside := next((file.name for file in folder.rglob("*") if root not in file.resolve().parents), ""):
                raise InvalidError(
                    f"the file {outside} in this folder is a link that leads out of runtime_adapters", "lora_path"
                )
            return str(folder)
    except (OSError, ValueError, RuntimeError):  # the name is too long, contains NUL, or the path's links form a loop
        pass
    if settings.runtime_adapters_from_hub and _HUB_ID.fullmatch(path) and not Path(path).exists():
        return path
    expected = "neither a folder below runtime_adapters nor a Hub id (owner/name or owner/name@revision)"
    if not settings.runtime_adapters_from_hub:
        expected = "not a folder below runtime_adapters"
    raise InvalidError(expected, "lora_path")
