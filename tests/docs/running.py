"""Determines the environment, the preceding block and the server of a block, and runs Python blocks."""

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
    "cohere",
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
# `huggingface_hub` is in both environments; on this page it is a client.
CLIENT_PAGES = {"docs/clients.md"}
# Keeps the clients from connecting to anything but the server.
QUIET = {"HAYSTACK_TELEMETRY_ENABLED": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "0"}
# A line that prints, with its output in a comment.
PRINTED = re.compile(r"^(\s*print\(.*\)  # )(.*)$", re.MULTILINE)


def flags_of(block: Block) -> tuple[str, ...]:
    """The flags of the block's server: none, or those of the named `l2v serve`."""
    before = named(block)
    if before is None or before.language != "bash":
        return ()
    (words,) = before.lines
    assert words[:2] == ["l2v", "serve"], f"{before}: only a block with `l2v serve` may have a name"
    return tuple(word.replace("examples/", f"{ROOT}/examples/") for word in words[2:])


def source(block: Block) -> str:
    """The code of a block of Python, after the code of the block that it names."""
    before = named(block)
    return block.body if before is None or before.language != "python" else f"{before.body}\n{block.body}"


def interpreter(block: Block) -> Path:
    """The Python of the clients' environment if the block imports a client, else ours."""
    modules = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(block.body))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    if not (block.page in CLIENT_PAGES or {module.split(".")[0] for module in modules} & CLIENT_MODULES):
        return Path(sys.executable)
    if not CLIENTS_PYTHON.exists():
        reason = "the clients are not installed; `make test` installs them"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return CLIENTS_PYTHON


def run_python(block: Block, address: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block of Python in a process of its own, with the address of a running service."""
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
