"""Runs blocks of shell as a reader would, in a folder with the files that they name and with a temporary home."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.bulk.shell import call
from tests.docs.blocks import ADDRESS, ROOT, Block
from tests.docs.running import CLIENTS_PYTHON

BIN = Path(sys.executable).parent
TEXTS = [
    f"{who} {does} the {what} number {i}"
    for i in range(40)
    for who in ("a cat", "the dog")
    for does in ("sees", "chases")
    for what in ("ball", "mouse", "car")
]
# Too short to learn anything, but every step of the code runs.
SHORT = {"--steps": "2", "--batch-size": "8", "--warmup-steps": "0"}


def lay_out(folder: Path) -> None:
    """Write the files that the pages name."""
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    (folder / "docs.csv").write_text("id,text\n1,the cat sits on the mat\n2,\n3,a dog barks\n")
    (folder / "articles.csv").write_text("id,title,body\n1,Cats,the cat sits on the mat\n2,Dogs,a dog barks\n")
    rows = [{"text": "what do cats do?"}, {"text": ""}, {"text": "who barks?"}]
    (folder / "queries.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pq.write_table(pa.table({"text": TEXTS[:100]}), folder / "docs.parquet")
    pairs = [{"query": text, "positive": f"{text} again", "negatives": [f"not {text}"]} for text in TEXTS[:20]]
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in pairs))
    (folder / "task_to_instructions.json").write_text('{"SciFact": "Retrieve documents that support the claim:"}')
    (folder / "l2v_keys").write_text("first-key\nsecond-key\n")
    for name in ("models", "docs", "examples", "training"):
        (folder / name).symlink_to(ROOT / name)


def run(block: Block, folder: Path, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run each line of a block. `l2v serve` is replaced by `l2v check`, which loads the model with the same settings.

    Args:
        block: of shell. With `fails="…"`, every line must fail with this message.
        folder: from `lay_out`.
        address: of the service that the lines call.
        capsys: pytest's fixture.
    """
    for line in block.shell:
        program = line.split()[0]
        fails = block.options.get("fails")
        if "l2v serve" in line:
            line = line.replace("l2v serve", "l2v check").replace("/run/secrets/", "")  # noqa: PLW2901
            if "--device cuda" in line and not torch.cuda.is_available():
                fails = "cuda"
        elif program == "make":
            # A dry run, because `make test` runs this test.
            line = line.replace("make", f"make -n -C {ROOT}")  # noqa: PLW2901
        elif program == "pip":
            here = re.sub(r"(?<=install )('?)\.", rf"\1{ROOT}", line)
            line = f"{here} --dry-run --no-deps --no-build-isolation"  # noqa: PLW2901
        elif line.startswith("python examples/"):
            line = f"{line} http://{address}".replace("python", str(CLIENTS_PYTHON), 1)  # noqa: PLW2901
        elif line.startswith("l2v train"):
            line = _shortened(line)  # noqa: PLW2901
        done = command(line.replace("gpu:8080", address).replace(ADDRESS, address), folder, capsys)
        if fails:
            assert done.returncode, f"{block}: {line} did not fail"
            assert fails in done.stderr, f"{block}: {line}\n{done.stderr}"
        else:
            assert done.returncode == 0, f"{block}: {line}\n{done.stdout}\n{done.stderr}"


def command(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> subprocess.CompletedProcess[str]:
    """Run a line of shell. A single `l2v` command runs in this process, which is faster."""
    if ours := re.fullmatch(r"((?:\w+=\S+ )*)l2v ([^|&;<>$`]+)", line):
        settings = dict(word.split("=", 1) for word in ours[1].split())
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            for name, value in (environment(folder) | settings).items():
                patch.setenv(name, value)
            ended = call(capsys, *shlex.split(ours[2]))
        return subprocess.CompletedProcess(line, ended.status, ended.out, ended.err)
    return subprocess.run(
        ["bash", "-euc", line],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(folder),
        timeout=240,
    )


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "120", "HOME": str(folder)}


def _shortened(line: str) -> str:
    for flag, value in SHORT.items():
        line, found = re.subn(rf"{flag} \S+", f"{flag} {value}", line)
        if not found and ("supervised" in line or flag != "--warmup-steps"):
            line += f" {flag} {value}"
    return line if "--data" in line else f"{line} --data texts.txt"
