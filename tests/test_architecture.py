"""The structure of the repository: direction of imports, settings of containers, commands of the README."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

from l2v.app.settings import Settings
from l2v.models.settings import PREFIX

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "models", "training")
# From bottom to top: a module may import from its own layer and from lower ones. The first match counts.
LAYERS = [
    ["l2v.models"],
    ["l2v.training"],
    ["l2v.app.metrics", "l2v.app.logs", "l2v.app.settings"],
    ["l2v.app.engine"],
    ["l2v.app.http"],
    ["l2v.app.main", "l2v.app.bulk"],
    ["l2v.app.workers"],
    ["l2v.app.commands"],
    ["l2v.app.cli", "l2v.app.cluster"],
]


def imports(path: Path) -> set[str]:
    """All names that a file imports, including imports in functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules() -> dict[str, Path]:
    """The modules of the packages by name."""
    return {
        ".".join(("l2v", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }


def layer(module: str) -> int | None:
    below = (level for level, names in enumerate(LAYERS) for name in names if f"{module}.".startswith(f"{name}."))
    return next(below, None)


def test_imports_run_one_way() -> None:
    for module, path in modules().items():
        own = layer(module)
        upwards = {name for name in imports(path) if own is not None and (layer(name) or 0) > own}
        assert not upwards, f"{module} imports {upwards}"


def test_training_does_not_import_the_app() -> None:
    for module, path in modules().items():
        if module.startswith("l2v.training"):
            assert not {name for name in imports(path) if name.startswith("l2v.app")}, module


def test_only_the_http_package_imports_http_libraries() -> None:
    for module, path in modules().items():
        if module.startswith(("l2v.app.engine", "l2v.models", "l2v.training", "l2v.app.metrics")):
            roots = {name.partition(".")[0] for name in imports(path)}
            assert not roots & {"fastapi", "starlette", "uvicorn", "httptools"}, module


def test_no_modules_import_each_other() -> None:
    known = modules()
    graph = {module: {name for name in imports(path) if name in known} - {module} for module, path in known.items()}
    # A package's __init__ re-exports its modules lazily; the modules of a package may import it.
    packages = {module for module, path in known.items() if path.name == "__init__.py"}
    graph = {module: names - packages for module, names in graph.items() if module not in packages}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_code_imports_l2v_alone() -> None:
    """One module under two names would be loaded twice, which doubles metrics and breaks `except`."""
    for folder in (*PACKAGES, "l2v", "tests", "bench", "docs", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not {name.partition(".")[0] for name in imports(path)} & set(PACKAGES), path


def test_the_cli_imports_neither_torch_nor_transformers() -> None:
    script = "import sys, l2v.app.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT).returncode == 0


def test_only_one_file_uses_attention_masks() -> None:
    for path in (ROOT / "models").glob("*.py"):
        if path.name != "attention.py":
            assert "attention_mask" not in path.read_text(), path


def test_the_built_in_model_is_small_and_contains_no_code() -> None:
    demo = ROOT / "models" / "demo"
    assert sum(file.stat().st_size for file in demo.rglob("*") if file.is_file()) <= 16_000_000
    assert all((demo / part).is_dir() for part in ("base", "mntp", "contrastive"))
    assert not [file for file in demo.rglob("*") if file.suffix in (".bin", ".pt", ".pkl", ".py")]


@pytest.fixture(scope="module")
def compose() -> dict[str, object]:
    content: dict[str, object] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def test_the_settings_of_compose_exist() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for path in (ROOT / "docker-compose.yml", ROOT / "docker" / "compose-keys.yml"):
        for name, service in yaml.safe_load(path.read_text())["services"].items():
            assert {key for key in service.get("environment", ()) if key.startswith(PREFIX)} <= known, name


def test_the_mounts_of_compose_exist(compose: dict[str, object]) -> None:
    mounts = re.findall(r"- (\./[^:]+):", (ROOT / "docker-compose.yml").read_text())
    assert len(mounts) == 4
    assert all((ROOT / mount).exists() for mount in mounts)


def test_the_settings_of_the_image_exist() -> None:
    named = set(re.findall(r"\b(L2V_\w+)=", (ROOT / "Dockerfile").read_text()))
    assert named == {"L2V_HOST", "L2V_PORT"} <= {PREFIX + name.upper() for name in Settings.model_fields}


def test_the_readme_is_short_and_starts_with_serve_and_test() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) < 1000
    assert (
        text.index("make serve")
        < text.index("make test")
        < text.index("l2v serve --model sheared-llama-1.3b-supervised")
    )


def test_all_dependencies_are_declared() -> None:
    """Every import of the service is a declared dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=~]", item)[0].replace("-", "_") for item in project["dependencies"]}
    used = set()
    for folder in ("app", "models"):
        for path in (ROOT / folder).rglob("*.py"):
            used |= {name.split(".")[0] for name in imports(path)}
    standard = set(sys.stdlib_module_names) | {"l2v", "starlette", "opentelemetry", "ray", "yaml", "google", ""}
    assert used - standard <= declared | {"pydantic_core"}
