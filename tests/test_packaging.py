"""`pip install` adds one top-level package, from a checkout, the sdist, or a checkout without symbolic links."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.test_architecture import ROOT

README_EXAMPLE = re.compile(r"```python[^\n]*\n(from l2v import Input, load\n.*?)```", re.DOTALL)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=os.environ | environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def copy_checkout(folder: Path, *, links: bool) -> Path:
    """Copies the tracked files. Without links, each link becomes a file with its target, as git does on Windows."""
    for name in run(
        "git", "ls-files", "app", "models", "training", "l2v", "*.toml", "LICENSE", "README.md", cwd=ROOT
    ).split():
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink() and not links:
            target.write_text(str(source.readlink()))
        elif source.exists() or source.is_symlink():
            shutil.copy2(source, target, follow_symlinks=False)
    return folder


def build_wheel(source: Path, out: Path) -> Path:
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, source, cwd=out)
    return next(out.glob("*.whl"))


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = copy_checkout(tmp_path_factory.mktemp("checkout"), links=True)
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_contains_one_package_with_all_files(wheel: Path) -> None:
    names = contents(wheel)
    assert {name.partition("/")[0] for name in names} == {"l2v"}
    tracked = run("git", "ls-files", "app", "models", "training", cwd=ROOT).split()
    assert names >= {f"l2v/{name}" for name in tracked if (ROOT / name).exists()}


def test_a_checkout_without_links_and_the_sdist_build_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    for folder in ("linkless", "a", "b", "sdist"):
        (tmp_path / folder).mkdir()
    source = copy_checkout(tmp_path / "linkless", links=False)
    assert contents(build_wheel(source, tmp_path / "a")) == contents(wheel)
    script = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path / 'sdist')!r})"
    run(sys.executable, "-c", script, cwd=source)
    assert contents(build_wheel(next((tmp_path / "sdist").glob("*.tar.gz")), tmp_path / "b")) == contents(wheel)


def test_an_installed_l2v_works_next_to_folders_with_the_same_names(wheel: Path, tmp_path: Path) -> None:
    """Runs in a new environment with the dependencies, but without this checkout."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    before = {path.name for path in site.iterdir()}
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    added = {path.name for path in site.iterdir()} - before
    assert {name for name in added if not name.endswith(".dist-info")} == {"l2v"}
    # A .pth file adds this environment's packages without running the import hooks of editable installs.
    (site / "dependencies.pth").write_text(next(path for path in sys.path if path.endswith("site-packages")))
    for name in ("app", "models", "training"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not this one')")
    example = README_EXAMPLE.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert example
    run(python, "-c", example[1], cwd=tmp_path)
    assert str(site) in run(python, "-c", "import l2v; print(l2v.__file__)", cwd=tmp_path)
    assert "pooled" in run(tmp_path / "venv/bin/l2v", "tokenize", "hi", cwd=tmp_path)
