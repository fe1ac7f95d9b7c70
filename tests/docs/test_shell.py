"""Every block of shell in README.md and docs/ runs, unless it gives a reason to be skipped.

A block that is on two pages runs once. A named block runs with the blocks that refer to it.
"""

from pathlib import Path

import pytest

from tests.docs import shell
from tests.docs.blocks import BLOCKS, Block
from tests.serving import ServerProcess

RUN = {b.body: b for b in BLOCKS if b.language == "bash" and not b.skip and "name" not in b.options}


@pytest.mark.parametrize("block", RUN.values(), ids=str)
def test_a_block_of_shell_runs(
    block: Block, demo: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.lay_out(tmp_path)
    shell.run(block, tmp_path, f"localhost:{demo.port}", capsys)
