"""The code blocks of README.md and docs/*.md: their location, language and options.

Options follow the language of a fence:

- `skip="reason"`: the block cannot run in a test; the reason is one of `REASONS`.
- `fails="words"`: the block fails with this message in tests, which have no network.
- `varies="numbers"`: the output differs between runs, for example in speed, and is compared without its numbers.
- `name="n"` and `with="n"`: the second block runs after the first, which is on the same page. A named block of shell
  contains one `l2v serve …`; blocks with its name run against a server that is started in this way.
"""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADDRESS = "localhost:8080"
REASONS = {
    "needs Docker": r"\bdocker\b",
    "needs Kubernetes": r"\bkubectl\b",
    "needs several machines": r"\bray start --address\b",
    "needs a GPU": r"\bcuda|\bgpu\b",
    "downloads a model": r"\bl2v serve --model \w+/",
    "is of another program": r"llm2vec|infinity|text-embeddings|L2V|openapi-python-client",
}
_FENCE = re.compile(r"^```(?P<info>\w[^\n]*)?\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
_OPTION = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page: path of the file, relative to the root.
        line: line number of the opening fence.
        language: first word of the info string; "" for an indented block.
        body: the code.
        options: the options in the info string.
    """

    page: str
    line: int
    language: str
    body: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def skip(self) -> str | None:
        return self.options.get("skip")

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Each `$ command` of a console block, with its output."""
        found = []
        for example in re.split(r"^\$ ", self.body, flags=re.MULTILINE)[1:]:
            lines = re.sub(r" \\\n\s*", " ", example).splitlines()
            # A quoted argument may span several lines.
            end = next(end for end in range(1, len(lines) + 1) if _is_whole("\n".join(lines[:end])))
            found.append(("\n".join(lines[:end]), "\n".join(lines[end:]).strip()))
        return found

    @property
    def shell(self) -> list[str]:
        """The commands of a block of shell."""
        joined = re.sub(r" \\\n\s*", " ", self.body)
        return [line.split(" #")[0].rstrip() for line in joined.splitlines() if shlex.split(line, comments=True)]

    @property
    def lines(self) -> list[list[str]]:
        """The commands of a block of shell, split into words."""
        return [shlex.split(line) for line in self.shell]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def _is_whole(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return False
    return True


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def read(path: Path) -> list[Block]:
    """Read the blocks of a page, in order."""
    text, page = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
    found = []
    for match in _FENCE.finditer(text):
        language, _, info = (match["info"] or "").partition(" ")
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, language, match["body"], dict(_OPTION.findall(info))))
    return sorted(found + _indented(_FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text), page), key=_line)


def _indented(text: str, page: str) -> list[Block]:
    """Find indented blocks: they follow a blank line and do not continue a list."""
    found: list[Block] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("    ") or not line.strip():
            continue
        if found and found[-1].line + found[-1].body.count("\n") == number + 1:
            found[-1] = Block(page, found[-1].line, "", f"{found[-1].body}{line.strip()}\n")
        elif number and not lines[number - 1].strip():
            before = next((above for above in reversed(lines[: number - 1]) if above.strip()), "")
            if not re.match(r"\s*([-*]|\d+\.) |    ", before):
                found.append(Block(page, number + 1, "", f"{line.strip()}\n"))
    return found


def _line(block: Block) -> int:
    return block.line


BLOCKS = [block for path in pages() for block in read(path)]


def named(block: Block) -> Block | None:
    """The block that a block names with `with`."""
    name = block.options.get("with")
    if name is None:
        return None
    return next(other for other in BLOCKS if other.page == block.page and other.options.get("name") == name)
