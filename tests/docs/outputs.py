"""Updates the outputs shown in the docs, with the built-in model: `python -m tests.docs.outputs [PAGE …]`.

These are the lines after each `$ curl …` in a console block, and the comment after each `print(…)` in a block of Python
that calls the service.
"""

import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.docs.blocks import ADDRESS, ROOT, Block, pages, read
from tests.docs.running import PRINTED, flags_of, run_python, source
from tests.serving import ServerProcess


def of_console(block: Block, address: str) -> str:
    """The body with the current output of each curl; other commands are unchanged."""
    body = block.body
    for example, (command, shown) in zip(
        re.split(r"^(?=\$ )", body, flags=re.MULTILINE)[-len(block.commands) :], block.commands, strict=True
    ):
        if command.startswith("curl"):
            words = ["bash", "-c", command.replace(ADDRESS, address)]
            output = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
            written = example.rstrip().removesuffix(shown).rstrip()
            body = body.replace(example, f"{written}\n{output}\n")
    return body


def of_python(block: Block, address: str) -> str:
    """The body with the current output of each print."""
    done = run_python(block, address, ROOT)
    done.check_returncode()
    lines = iter(done.stdout.splitlines())
    return PRINTED.sub(lambda line: line[1] + next(lines), block.body)


def shows_output(block: Block) -> bool:
    if block.skip:
        return False
    if block.language == "console":
        return "$ curl" in block.body
    return block.language == "python" and ADDRESS in source(block) and PRINTED.search(block.body) is not None


def main() -> None:
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or pages()
    with ExitStack() as stack:
        servers: dict[tuple[str, ...], ServerProcess] = {}
        for page in chosen:
            for block in filter(shows_output, read(page)):
                flags = flags_of(block)
                if flags not in servers:
                    servers[flags] = stack.enter_context(ServerProcess(*flags))
                    servers[flags].wait_ready()
                fresh = (of_python if block.language == "python" else of_console)(
                    block, f"localhost:{servers[flags].port}"
                )
                text = page.read_text(encoding="utf-8")
                page.write_text(text.replace(block.body, fresh), encoding="utf-8")
                print(block)


if __name__ == "__main__":
    main()
