"""Programs of the system that some tests need."""

import os
import shutil

import pytest


def program(name: str, package: str) -> str:
    """Where a program is; without it the test is skipped, and fails in CI, which installs it."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed (Debian's package {package} has it)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return path
