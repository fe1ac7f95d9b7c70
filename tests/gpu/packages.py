"""Packs what a machine with torch 2.11, transformers 5.17 and no network lacks, and unpacks it there.

    python -m tests.gpu.packages pack [--python 3.12] [--without NAME …]
    python -m tests.gpu.packages unpack

The first runs where there is a network, and fills the folders of `.gpu`, which travel with the checkout: `service` with
all that l2v and its tests need, and one folder each with a library that `bench` compares with. The benchmark leaves out
libraries whose folder does not travel. Runs with Python alone.
"""

import argparse
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_FOLDER = _ROOT / ".gpu"
_SITE = _FOLDER / "site"
_LLM2VEC = _ROOT / ".venv-bench/llm2vec"
_ON_MACHINE = ["torch===2.11.0", "transformers===5.17.0"]
# Comes with those, or is not needed: only `l2v embed` reads and writes tables.
_LEFT_OUT = re.compile(
    r"(torch|transformers|triton|nvidia-.*|cuda-.*|numpy|tokenizers|safetensors|huggingface-hub|hf-xet|sympy|mpmath"
    r"|networkx|regex|setuptools|pyarrow)"
)
_TESTS = ["psutil", "pytest", "pytest-timeout", "urllib3"]
# What `import llm2vec` needs. It runs with the transformers of its own time.
_OF_LLM2VEC = re.compile(
    r"accelerate|charset-normalizer|huggingface-hub|llm2vec|peft|requests|tokenizers|transformers|urllib3"
)
_LIMIT = 60_000_000
_PLATFORMS = ["manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux_2_5", "manylinux1"]


def pack(python: str, without: set[str]) -> None:
    """Download the wheels of x86-64 Linux."""
    shutil.rmtree(_FOLDER, ignore_errors=True)
    service = {
        pin for pin in _resolve(python, [*_ON_MACHINE, *_TESTS], _ROOT / "pyproject.toml") if not _on_machine(pin)
    }
    others = _resolve(python, [*_ON_MACHINE, "sentence-transformers>=6.2,<7"])
    pins = {
        "service": service,
        "sentence-transformers": {pin for pin in others - service if not _on_machine(pin)},
        "llm2vec": {
            pin
            for pin in _resolve(python, _ON_MACHINE[:1], _ROOT / "tests/parity/requirements.txt")
            if _OF_LLM2VEC.fullmatch(_name(pin))
        },
    }
    for name, wanted in pins.items():
        folder = _FOLDER / name
        _download(python, sorted(pin for pin in wanted if _name(pin) not in without), folder)
        size = sum(wheel.stat().st_size for wheel in folder.iterdir())
        print(f"{folder.relative_to(_ROOT)}: {len(list(folder.iterdir()))} wheels, {size / 1e6:.0f} MB")
        if size > _LIMIT:
            sys.exit(f"{folder} has more than {_LIMIT / 1e6:.0f} MB: leave out by --without what the machine has")


def _name(pin: str) -> str:
    return pin.partition("==")[0]


def _on_machine(pin: str) -> bool:
    return bool(_LEFT_OUT.fullmatch(_name(pin)))


def _resolve(python: str, packages: list[str], *files: Path) -> set[str]:
    """The pins of packages and of all that they need."""
    with tempfile.NamedTemporaryFile("w", suffix=".in") as wanted:
        wanted.write("\n".join(packages))
        wanted.flush()
        command = [
            "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python,
            "--python-platform", "x86_64-manylinux_2_28", wanted.name, *map(str, files),
        ]  # fmt: skip
        command[0] = str(Path(sys.executable).with_name("uv"))
        return set(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split())


def _download(python: str, pins: list[str], folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = [pin for pin in pins if _name(pin) == "llm2vec"]  # it has no wheel
    if source:
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, *source], check=True)
    platforms = [flag for name in _PLATFORMS for flag in ("--platform", f"{name}_x86_64")]
    versions = ["--implementation", "cp", "--python-version", python]
    subprocess.run(
        [*pip, "download", "--no-deps", "--only-binary=:all:", *versions, *platforms, "--dest", folder,
         *(pin for pin in pins if pin not in source)], check=True,
    )  # fmt: skip


def unpack() -> None:
    """Install the wheels beside the machine's own packages: in `.gpu/site`, and llm2vec's in a venv."""
    shutil.rmtree(_SITE, ignore_errors=True)
    for name in ("service", "sentence-transformers"):
        _install(_FOLDER / name, _SITE)
    # l2v runs from the checkout, and reads its version from what pip writes at installation.
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = _SITE / f"l2v-{project['version']}.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: l2v\nVersion: {project['version']}\n", encoding="utf-8")
    if (_FOLDER / "llm2vec").is_dir():
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", _LLM2VEC], check=True)
        (site,) = _LLM2VEC.glob("lib/python*/site-packages")
        _install(_FOLDER / "llm2vec", site)
        # A venv sees the packages of the interpreter that it was made from only if that is no venv itself.
        (site / "machine.pth").write_text(f"{_SITE}\n{sysconfig.get_path('purelib')}\n", encoding="utf-8")


def _install(wheels: Path, target: Path) -> None:
    if wheels.is_dir():
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        files = sorted(wheels.glob("*.whl"))
        subprocess.run([*pip, "--no-index", "--no-deps", "--no-compile", "--target", target, *files], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.packages", description=__doc__)
    parser.add_argument("action", choices=["pack", "unpack"])
    parser.add_argument("--python", default="3.12", help="the machine's version of Python")
    parser.add_argument("--without", nargs="+", default=[], help="packages that the machine has")
    given = parser.parse_args()
    if given.action == "pack":
        pack(given.python, set(given.without))
    else:
        unpack()


if __name__ == "__main__":
    main()
