"""Where results come from: the machine and the commit of the code."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch


def origin(module: str, device: str = "cpu") -> dict[str, str]:
    """What results say about their origin: date, machine, commit and command.

    Args:
        module: the module that this process runs.
        device: `cuda` or `cpu`.
    """
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(device),
        "commit": commit(),
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
    }


def machine(device: str) -> str:
    """The GPU, or the cores of the CPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = next(
        (
            line.partition(": ")[2]
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{os.cpu_count()} cores of {model}, {torch.backends.cpu.get_cpu_capability()}"


def commit() -> str:
    """The commit of this code, with `-dirty` if it has changed since. Changes in results and docs do not count."""
    if not (git := shutil.which("git")):
        return "unknown"
    described = subprocess.run([git, "describe", "--always"], check=False, capture_output=True, text=True)
    code = [":/", *(f":(top,exclude){results}" for results in ("bench/results", "docs", "tests/fuzz/costs.json"))]
    changed = subprocess.run([git, "diff", "--quiet", "HEAD", "--", *code], check=False, stderr=subprocess.DEVNULL)
    if described.returncode:
        return "unknown"
    return f"{described.stdout.strip()}{'-dirty' * bool(changed.returncode)}"
