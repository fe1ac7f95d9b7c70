"""The manifests for Kubernetes: what `kubectl apply -k` would send is valid, and fits the service."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from l2v.app.main import create_app
from l2v.app.settings import Settings
from l2v.models.settings import PREFIX
from tests.test_architecture import ROOT

KUBERNETES = ROOT / "docker" / "kubernetes"
VERSIONS = ("1.30", "1.37")  # the lowest that has `sleep` in preStop, and the newest known
COMBINATIONS = {
    "cpu": (["base"], []),
    "gpu": (["overlays/gpu"], []),
    "all": (["overlays/gpu"], ["components/monitoring", "components/autoscaling"]),
}


def build(folder: Path, combination: str) -> list[dict[str, Any]]:
    """The objects of a kustomization that combines some of ours, as a user's would."""
    resources, components = (
        [os.path.relpath(KUBERNETES / name, folder) for name in names] for names in COMBINATIONS[combination]
    )
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"resources": resources, "components": components}))
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("kubectl is not installed; Debian 12 has none that knows components")
    command = [kubectl, "kustomize", "--load-restrictor=LoadRestrictionsNone", folder]
    return list(yaml.safe_load_all(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


@pytest.fixture(params=COMBINATIONS)
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> list[dict[str, Any]]:
    return build(tmp_path, request.param)


def kinds(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in objects}


def schema(kind: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((KUBERNETES / "schemas" / f"{kind.lower()}.json").read_text())
    return loaded


def validate(objects: list[dict[str, Any]], version: str, path: Path) -> None:
    """Validate objects, by way of a file, against the schemas of the API and of its extensions."""
    custom = [each for each in objects if each["apiVersion"].partition("/")[0] in ("keda.sh", "monitoring.coreos.com")]
    for each in custom:
        jsonschema.validate(each, schema(each["kind"]))
    path.write_text(yaml.safe_dump_all([each for each in objects if each not in custom]))
    command = [Path(sys.executable).with_name("kubernetes-validate"), "--strict", "--kubernetes-version", version, path]
    validated = subprocess.run(command, check=False, capture_output=True, text=True)
    assert validated.returncode == 0, validated.stdout + validated.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_all_objects(version: str, tmp_path: Path) -> None:
    objects = [each for combination in COMBINATIONS for each in build(tmp_path, combination)]
    validate(objects, version, tmp_path / "manifest.yaml")


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_the_files_as_written(version: str, tmp_path: Path) -> None:
    """Needs no kubectl. The other files are parts for kustomize."""
    files = [path for folder in ("base", "components/*") for path in sorted(KUBERNETES.glob(f"{folder}/*.yaml"))]
    objects = [yaml.safe_load(path.read_text()) for path in files if path.name != "kustomization.yaml"]
    assert len(objects) == 7
    validate(objects, version, tmp_path / "manifest.yaml")


def test_only_the_overlay_for_gpus_has_the_image_with_cuda(objects: list[dict[str, Any]]) -> None:
    (container,) = kinds(objects)["Deployment"]["spec"]["template"]["spec"]["containers"]
    on_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
    assert container["image"] == ("l2v:latest" if on_gpu else "l2v:cpu")


def test_a_misspelled_field_is_found(tmp_path: Path) -> None:
    """The schemas are strict, so the test above can fail."""
    scaled = kinds(build(tmp_path, "all"))["ScaledObject"]
    scaled["spec"]["maxReplicas"] = scaled["spec"].pop("maxReplicaCount")
    with pytest.raises(jsonschema.ValidationError, match="maxReplicas"):
        jsonschema.validate(scaled, schema("ScaledObject"))


def test_the_pods_are_selected_by_their_labels(objects: list[dict[str, Any]]) -> None:
    found = kinds(objects)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert selectors == [labels] * 4
    (dns,) = found["NetworkPolicy"]["spec"]["egress"][0]["to"]
    assert not set(labels) & set(dns["podSelector"]["matchLabels"])
    if "ServiceMonitor" in found:
        selected = found["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
        assert selected.items() <= found["Service"]["metadata"]["labels"].items()


def test_the_service_accepts_the_settings_and_answers_the_probes(objects: list[dict[str, Any]]) -> None:
    found = kinds(objects)
    settings = found["ConfigMap"]["data"]
    assert {name.removeprefix(PREFIX).lower() for name in settings} <= set(Settings.model_fields)
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(Path(settings["L2V_API_KEYS_FILE"]).parent) in mounts
    assert {f"/{name}" for name in ("models", "tmp")} <= mounts
    assert container["ports"] == [{"name": "http", "containerPort": Settings.model_fields["port"].default}]
    paths = create_app(Settings(model="demo")).openapi()["paths"]
    probed = [container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")]
    scraped = (
        [each["path"] for each in found["ServiceMonitor"]["spec"]["endpoints"]] if "ServiceMonitor" in found else []
    )
    assert set(probed + scraped) <= set(paths)


def test_pods_have_time_to_drain(objects: list[dict[str, Any]]) -> None:
    pod = kinds(objects)["Deployment"]["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause + Settings.model_fields["drain_timeout"].default
    assert pod["enableServiceLinks"] is False


def test_kustomize_leaves_the_number_of_replicas_to_the_autoscaler(tmp_path: Path) -> None:
    found = kinds(build(tmp_path, "all"))
    assert "replicas" not in found["Deployment"]["spec"]
    scaled = found["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    (trigger,) = scaled["triggers"]
    assert re.findall(r'job="(\w+)"', trigger["metadata"]["query"]) == [found["Service"]["metadata"]["name"]]
