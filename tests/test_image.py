"""The images: their packages are pinned by hash and listed with licences, and they run without privileges."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.test_architecture import ROOT

DOCKER = ROOT / "docker"
LOCKS = {variant: (DOCKER / f"requirements-{variant}.txt").read_text(encoding="utf-8") for variant in ("cuda", "cpu")}
# Where the images run.
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "python_version": "3.11",
         "python_full_version": "3.11.9", "platform_python_implementation": "CPython"}  # fmt: skip


def pins(variant: str) -> list[Requirement]:
    return [Requirement(line.split(" \\")[0]) for line in LOCKS[variant].splitlines() if re.match(r"[a-z]", line)]


def installed(variant: str, machine: str = "x86_64") -> dict[str, str]:
    """The version of each package that the image gets."""
    environment = LINUX | {"platform_machine": machine}
    return {
        pin.name: str(pin.specifier)[2:]
        for pin in pins(variant)
        if pin.marker is None or pin.marker.evaluate(environment)
    }


@pytest.mark.parametrize("variant", LOCKS)
def test_every_package_is_pinned_with_hashes_and_without_a_url(variant: str) -> None:
    lock = LOCKS[variant]
    entries = re.split(r"\n(?=[a-z])", lock)[1:]
    assert len(entries) == len(pins(variant)) > 50
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==\S+", entry)
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry)
    assert "://" not in lock
    assert "index" not in lock


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_image_for_cpus_has_the_same_versions_without_cuda(machine: str) -> None:
    both, cpu = installed("cuda", machine), installed("cpu", machine)
    cuda = {name for name in both if name.startswith(("cuda-", "nvidia-"))} | {"triton"}
    assert len(cuda) > 15
    assert cpu == {name: version for name, version in both.items() if name not in cuda} | {
        "torch": f"{both['torch']}+cpu"
    }


@pytest.mark.parametrize("variant", LOCKS)
def test_the_pins_satisfy_the_dependencies(variant: str) -> None:
    """A new dependency or a changed bound requires `make lock`."""
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        required = Requirement(text)
        assert installed(variant)[required.name] in required.specifier, f"{required}: run `make lock`"


def test_the_image_gets_every_package_of_the_project() -> None:
    """Only the image would lack a missing package, so no other test would notice."""
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values()
    copied = re.findall(r"^COPY (\w+) \./\1$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(copied) == sorted(folders)
    assert not set(copied) & set((ROOT / ".dockerignore").read_text(encoding="utf-8").split())


def test_pip_rejects_a_wrong_hash(tmp_path: Path) -> None:
    """A requirement like those of the lock, with a wrong hash, is rejected before the installation."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "small"\nversion = "1"\n')
    wheel = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            tmp_path,
            tmp_path,
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert wheel.returncode == 0, wheel.stderr
    (built,) = tmp_path.glob("*.whl")
    (tmp_path / "requirements.txt").write_text(f"{built} --hash=sha256:{'0' * 64}\n")
    rejected = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index"),
            *("--require-hashes", "-r", tmp_path / "requirements.txt"),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert rejected.returncode != 0
    assert "DO NOT MATCH THE HASHES" in rejected.stderr


def test_the_licence_of_every_package_is_listed() -> None:
    """A changed pin requires `make licences`."""
    rows = re.findall(
        r"^\| (\S+) \| (\S+) \| (.+) \|$", (DOCKER / "licences.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    listed = {name: version for name, version, _ in rows if name != "package"}
    assert listed == installed("cuda"), "run `make licences`"
    assert all(licence.strip() for _, _, licence in rows)


def test_a_package_without_a_licence_fails_the_list(tmp_path: Path) -> None:
    folder = tmp_path / "silent-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: silent\nVersion: 1.0\n")
    ended = subprocess.run(
        [sys.executable, DOCKER / "licences.py"],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert (ended.returncode, "silent" in ended.stderr) == (1, True)


def test_the_dockerfile_installs_by_hash_and_runs_as_a_user() -> None:
    text = (ROOT / "Dockerfile").read_text()
    installs = [line for line in text.splitlines() if re.search(r"\bpip install\b", line)]
    assert len(installs) == 2
    assert "--require-hashes --only-binary :all:" in installs[0]
    assert re.findall(r"^COPY docker/(.*)-\$VARIANT.txt requirements.txt$", text, re.MULTILINE) == ["requirements"]
    assert "--no-deps --no-build-isolation" in installs[1]
    users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
    assert users == ["10001"]
    assert text.index("USER") < text.index("ENTRYPOINT")
    assert not re.search(r"KEY|TOKEN|SECRET|PASSWORD", text)


COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.mark.parametrize("name", ["l2v", "l2v-gpu"])
def test_compose_confines_the_service(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp"]  # noqa: S108 - a path in the container
    assert "privileged" not in service
    # Values in `environment` would override the user's file.
    assert set(service.get("environment", ())) <= {"L2V_DEVICE"}


def test_compose_limits_and_checks_every_service() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service.get("healthcheck") or service["build"], name  # our image has its own
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()


def test_compose_has_torch_with_cuda_for_the_gpu_alone() -> None:
    built = {name: service["build"] for name, service in COMPOSE["services"].items() if "build" in service}
    assert built == {"l2v": {"context": ".", "args": {"VARIANT": "cpu"}}, "l2v-gpu": "."}
    images = [COMPOSE["services"][name]["image"] for name in built]
    assert len(set(images)) == len(images)


def test_compose_requires_no_variable() -> None:
    """Compose replaces variables in the whole file, also for services that it doesn't start."""
    assert not re.search(r"\$\{\w+:?\?", (ROOT / "docker-compose.yml").read_text())
    assert COMPOSE["services"]["grafana"]["profiles"]


def test_keys_for_compose_are_a_file_that_git_and_the_image_ignore() -> None:
    added = yaml.safe_load((ROOT / "docker" / "compose-keys.yml").read_text())
    assert set(added["services"]) == {name for name in COMPOSE["services"] if name.startswith("l2v")}
    path = added["secrets"]["api_keys"]["file"].removeprefix("./")
    assert f"/{path}" in (ROOT / ".gitignore").read_text().split()
    assert path in (ROOT / ".dockerignore").read_text().split()
