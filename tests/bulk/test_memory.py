"""Memory use does not grow with the input."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bulk.shell import L2V, texts, write

MEGABYTE = 1 << 20
# Measured from a small process, since a child's peak includes that of the process that forked it.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.parametrize(
    ("source", "target"), [("in.jsonl", "out.parquet"), pytest.param("in.parquet", "out.jsonl", marks=pytest.mark.long)]
)
def test_more_rows_need_no_more_memory(source: str, target: str, adapter: Path, tmp_path: Path) -> None:
    """The kept column makes each row 8 KB, so the larger input has 96 MB more.

    The smaller one is large enough for memory to have reached its level: freed memory is kept, not returned.
    """
    peaks = []
    for times in (3, 6):
        rows = [{"text": text, "body": f"{i:08}" * 1024} for i, text in enumerate(texts(4_000 * times, 4))]
        path, out = write(tmp_path / f"{times}{source}", rows), tmp_path / f"{times}{target}"
        del rows
        keep = [] if target == "out.npy" else ["--keep", "body"]
        command = [L2V, "embed", path, out, "--dtype", "float32", "--model", adapter, *keep]
        peaks.append(1024 * int(subprocess.check_output([sys.executable, "-c", MEASURE, *map(str, command)])))
    print(f"{source} to {target}: {peaks[0] / MEGABYTE:.0f} MB, with more rows {peaks[1] / MEGABYTE:.0f} MB")
    assert peaks[1] - peaks[0] < 48 * MEGABYTE
