"""The shape of the house: who imports whom, what containers are told, and that the README tells the truth."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from l2v.app.settings import Settings
from l2v.models.settings import PREFIX

ROOT = Path(__file__).parents[1]
# From the lowest: a module may import those before it and its own.
LAYERS = [
    ["l2v.app.http.errors", "l2v.app.logs", "l2v.app.http.telemetry"],
    ["l2v.app.http.auth"],
    ["l2v.app.http.schemas", "l2v.app.http.limits", "l2v.app.http.protocol", "l2v.app.engine.jobs"],
    ["l2v.app.http.connection", "l2v.app.engine.executor"],
    ["l2v.app.engine.scheduler"],
    ["l2v.app.engine.prompts"],
    ["l2v.app.settings", "l2v.app.engine.inputs"],
    ["l2v.app.engine.tokenization"],
    [
        "l2v.app.engine.service",
        "l2v.app.engine.vectors",
        "l2v.app.http.responses",
        "l2v.app.http.offload",
        "l2v.app.http.tracing",
    ],
    ["l2v.app.http.files"],
    ["l2v.app.http.routes"],
    ["l2v.app.main"],
    ["l2v.app.bulk"],
    ["l2v.app.commands"],
    ["l2v.app.cli", "l2v.app.cluster"],
]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_models_import_nothing_from_above() -> None:
    for path in (ROOT / "models").rglob("*.py"):
        assert not {name for name in imports(path) if name.split(".")[0] in ("app", "training", "bench", "tests")}, path


def test_app_imports_run_one_way() -> None:
    rank = {name: level for level, names in enumerate(LAYERS) for name in names}

    def level(module: str) -> int | None:
        return next((rank[name] for name in rank if module == name or module.startswith(f"{name}.")), None)

    for path in (ROOT / "app").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if (own := level(module)) is None:
            continue
        upwards = {name for name in imports(path) if (other := level(name)) is not None and other > own}
        assert not upwards, f"{module} imports {upwards}"


def test_the_commands_help_does_not_wait_for_torch() -> None:
    script = "import sys, l2v.app.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT).returncode == 0


def test_masks_are_known_in_one_file_only() -> None:
    for path in (ROOT / "models").glob("*.py"):
        if path.name != "attention.py":
            assert "attention_mask" not in path.read_text(), path


def test_the_built_in_model_travels_in_the_package_and_is_small() -> None:
    demo = ROOT / "models" / "demo"
    assert sum(file.stat().st_size for file in demo.rglob("*") if file.is_file()) <= 16_000_000
    assert all((demo / part).is_dir() for part in ("base", "mntp", "contrastive"))
    assert not [file for file in demo.rglob("*") if file.suffix in (".bin", ".pt", ".pkl", ".py")]


@pytest.fixture(scope="module")
def compose() -> dict[str, object]:
    content: dict[str, object] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def test_compose_passes_on_settings_that_exist(compose: dict[str, object]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in ("l2v", "l2v-gpu"):
        environment = compose["services"][name]["environment"]  # type: ignore[index]
        assert {key for key in environment if key.startswith(PREFIX)} <= known
    assert compose["services"]["l2v-gpu"]["profiles"] == ["gpu"]  # type: ignore[index]


def test_compose_mounts_what_is_in_the_repository(compose: dict[str, object]) -> None:
    mounts = re.findall(r"- (\./[^:]+):", (ROOT / "docker-compose.yml").read_text())
    assert len(mounts) == 4
    assert all((ROOT / mount).exists() for mount in mounts)


def test_the_images_environment_names_settings_that_exist() -> None:
    named = set(re.findall(r"\b(L2V_\w+)=", (ROOT / "Dockerfile").read_text()))
    assert named == {"L2V_HOST", "L2V_PORT"} <= {PREFIX + name.upper() for name in Settings.model_fields}


def test_the_readme_opens_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (
        text.index("make serve")
        < text.index("make test")
        < text.index("l2v serve --model sheared-llama-1.3b-supervised")
    )


def test_the_package_names_what_it_needs() -> None:
    """Every import of the service is a declared dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=~]", item)[0].replace("-", "_") for item in project["dependencies"]}
    used = set()
    for folder in ("app", "models"):
        for path in (ROOT / folder).rglob("*.py"):
            used |= {name.split(".")[0] for name in imports(path)}
    standard = set(sys.stdlib_module_names) | {"app", "models", "training", "starlette", "opentelemetry", "ray", ""}
    assert used - standard <= declared | {"pydantic_core"}
