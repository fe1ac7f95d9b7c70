"""Running `l2v` in this process, which is fast, or in a process of its own, as users do."""

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from l2v.app.cli import main

L2V = str(Path(sys.executable).with_name("l2v"))
_SENTENCE = "the cat sits on a mat and stock markets fell sharply while rivers run from green mountains"


WORDS = _SENTENCE.split()


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


def call(capsys: pytest.CaptureFixture[str], *arguments: object, stdin: bytes = b"") -> Ended:
    """Run the command in this process."""
    environment = set(os.environ)
    status: Any = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["l2v", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            main()
        except SystemExit as exit_:
            status = exit_.code
    for name in os.environ.keys() - environment:  # other processes would inherit it
        del os.environ[name]
    captured = capsys.readouterr()
    if isinstance(status, str):  # the interpreter prints it
        return Ended(1, captured.out, captured.err + status)
    return Ended(status or 0, captured.out, captured.err)


def start(*arguments: object, **options: Any) -> "subprocess.Popen[bytes]":
    """Start the command in its own process."""
    return subprocess.Popen(
        [L2V, *map(str, arguments)],
        stderr=subprocess.PIPE,
        env=os.environ | options.pop("environment", {}),
        cwd=tempfile.gettempdir(),
        **options,
    )


def run(*arguments: object, stdin: bytes | None = None, **environment: str) -> Ended:
    """Run the command in its own process."""
    process = start(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, environment=environment)
    out, err = process.communicate(stdin, timeout=120)
    return Ended(process.returncode, out.decode(), err.decode())


def texts(count: int, words: int = 12) -> list[str]:
    """Different texts of different lengths."""
    return [" ".join(WORDS[(i * 7 + k * k) % len(WORDS)] for k in range(1 + i % words)) + f" {i}" for i in range(count)]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write an input file in the format of its extension."""
    import csv

    import pyarrow as pa

    if path.suffix == ".txt":
        path.write_text("".join(f"{row['text']}\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=100)
    return path


def read(path: Path) -> np.ndarray:
    """The vectors of an output file."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".jsonl":
        return np.array([json.loads(line)["embedding"] for line in path.read_text().splitlines()], np.float32)
    return np.stack(pq.read_table(path)["embedding"].to_numpy())


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Each row scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
