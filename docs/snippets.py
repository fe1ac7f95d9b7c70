"""The code of clients for the docs, extracted from tests/clients/run.py and examples/."""

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = ROOT / "tests" / "clients" / "run.py"
REQUIREMENTS = ROOT / "tests" / "clients" / "requirements.txt"
ADDRESS = "http://localhost:8080"
# Imports to leave out: `sys` is for the command line, and the docs show `corpus` in a block of its own.
_LEFT_OUT = {"sys", "corpus"}


def client_names() -> list[str]:
    """The clients: the functions of run.py."""
    functions = [node for node in ast.parse(RUN.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    return [node.name for node in functions]


def store_names() -> list[str]:
    """The examples for vector stores."""
    return sorted(path.stem for path in (ROOT / "examples").glob("*_search.py"))


def client(name: str) -> str:
    """The code of a client: the body of its function."""
    source = RUN.read_text(encoding="utf-8")
    return _for_readers(_body(source, name), "scores" if name.endswith("similarity") else "vectors")


def store(name: str) -> str:
    """The code of an example for a vector store: its imports and the body of its `main`."""
    source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {
        ast.unparse(node): (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) for node in imports
    }
    standard = [line for line, module in modules.items() if module in sys.stdlib_module_names - _LEFT_OUT]
    others = [line for line, module in modules.items() if module not in sys.stdlib_module_names | _LEFT_OUT]
    parts = ["\n".join(standard), "\n".join(others), _for_readers(_body(source, "main"), "places")]
    return "\n\n".join(filter(None, parts))


def corpus() -> str:
    """The code that the examples share, without the docstring."""
    source = (ROOT / "examples" / "corpus.py").read_text(encoding="utf-8")
    return _format(source[source.index("import ") :])


def clients_table() -> str:
    """The tested versions, as pinned in the tests' requirements."""
    pins = [line.split("==") for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if "==" in line]
    return "\n".join(["| package | tested version |", "|---|---|", *(f"| {name} | {pin} |" for name, pin in pins)])


def _body(source: str, name: str) -> str:
    """The source lines of a function after its docstring, with comments."""
    function = next(
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.name == name
    )
    first = function.body[1] if ast.get_docstring(function) else function.body[0]
    return textwrap.dedent("\n".join(source.splitlines()[first.lineno - 1 : function.end_lineno]))


def _for_readers(code: str, result: str) -> str:
    """Adapt code for readers: a literal address, the page's `texts`, and an assignment instead of `return`."""
    code = re.sub(r'f"\{url\}([^"]*)"', rf'"{ADDRESS}\1"', code)
    code = re.sub(r"(?<![\"\w])url(?![\"\w=])", f'"{ADDRESS}"', code)
    code = re.sub(r"^return\b", f"{result} =", code, flags=re.MULTILINE).replace("TEXTS", "texts")
    return _format(code)


def _format(code: str) -> str:
    """Format code with ruff."""
    ruff = Path(sys.executable).with_name("ruff")
    command = [ruff, "format", "--isolated", "--line-length", "120", "--stdin-filename", "block.py", "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
