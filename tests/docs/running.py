"""Running a block: in which environment, behind which other block, and against which server."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ADDRESS, ROOT, Block, named

CLIENTS_PYTHON = ROOT / ".venv-clients" / "bin" / "python"
CLIENT_MODULES = {
    "haystack",
    "haystack_integrations",
    "langchain_huggingface",
    "langchain_openai",
    "lancedb",
    "litellm",
    "llama_index",
    "openai",
    "qdrant_client",
}
# `huggingface_hub` is in both environments; the blocks of this page are the clients'.
CLIENT_PAGES = {"docs/clients.md"}
# No proxy and no telemetry: the clients talk to the server and to nobody else.
QUIET = {"HAYSTACK_TELEMETRY_ENABLED": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "0"}
# A line that prints, and the comment that says what.
PRINTED = re.compile(r"^(\s*print\(.*\)  # )(.*)$", re.MULTILINE)


def flags_of(block: Block) -> tuple[str, ...]:
    """The flags of the server that the block talks to: none, or those of the named `l2v serve`."""
    before = named(block)
    if before is None or before.language != "bash":
        return ()
    (words,) = before.lines
    assert words[:2] == ["l2v", "serve"], f"{before}: only a server has a name"
    return tuple(words[2:])


def source(block: Block) -> str:
    """The code of a block of Python, behind that of the block it goes with."""
    before = named(block)
    return block.body if before is None or before.language != "python" else f"{before.body}\n{block.body}"


def interpreter(block: Block) -> Path:
    """The clients' own environment for what imports one of them, else ours."""
    modules = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(block.body))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    if not (block.page in CLIENT_PAGES or {module.split(".")[0] for module in modules} & CLIENT_MODULES):
        return Path(sys.executable)
    if not CLIENTS_PYTHON.exists():
        reason = "the clients are not installed (`make test` does that)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return CLIENTS_PYTHON


def run_python(block: Block, address: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a block of Python in a process of its own, with the address of a running service."""
    python = interpreter(block)
    added = QUIET if python == CLIENTS_PYTHON else {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [python, "-c", source(block).replace(ADDRESS, address)],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | added,
        timeout=240,
    )
