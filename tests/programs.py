"""System programs that some tests require."""

import os
import shutil

import pytest


def program(name: str, package: str) -> str:
    """Returns the path of a program. Without it, skips the test, or fails it in CI, which installs the program."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed (Debian package: {package})"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return path
