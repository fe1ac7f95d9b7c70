"""The service on Ray: several replicas act as one service, and a replica that dies is replaced."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from pydantic import ValidationError

from l2v.app.cluster import Replica, ReplicaSettings, build
from l2v.app.engine.vectors import normalize
from l2v.models import Input, load
from tests.bulk.shell import call, read, texts, write
from tests.docs.blocks import BLOCKS
from tests.serving import LOAD_SECONDS, free_port, wait_for

(BLOCK,) = [block for block in BLOCKS if "import_path: l2v.app.cluster:build" in block.body]
REPLICAS = 2


class Cluster:
    """Ray with the configuration from the docs, on this machine: on the CPU, in float32."""

    def __init__(self, folder: Path) -> None:
        config = yaml.safe_load(BLOCK.body)
        (application,) = config["applications"]
        (deployment,) = application["deployments"]
        port = free_port()
        config["http_options"] = {"host": "127.0.0.1", "port": port}
        application["args"]["dtype"] = "float32"
        deployment |= {"num_replicas": REPLICAS, "ray_actor_options": {"num_cpus": 0.1}}
        (folder / "l2v.yaml").write_text(yaml.safe_dump(config))
        self.model = application["args"]["model"]
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self._log = folder / "log"
        environment = {
            "RAY_TMPDIR": str(folder),  # isolates the cluster
            "RAY_AUTH_MODE": "disabled",  # otherwise Ray writes a token to the home folder
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name("serve"), "run", folder / "l2v.yaml"],
                stdout=log, stderr=log, cwd=folder, env={**os.environ, **environment},
            )  # fmt: skip

    def wait_ready(self) -> None:
        wait_for(lambda: self._process.poll() is not None or self._is_ready(), LOAD_SECONDS, "ready")
        assert self._process.poll() is None, self.log

    def _is_ready(self) -> bool:
        try:
            return self.client.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children(recursive=True)

    def samples(self, name: str) -> list[Sample]:
        """The samples of one metric from all replicas."""
        families = text_string_to_metric_families(self.client.get("/metrics").raise_for_status().text)
        return [sample for family in families for sample in family.samples if sample.name == name]

    @property
    def replicas(self) -> set[str]:
        return {sample.labels["replica"] for sample in self.samples("l2v_engine_up") if sample.value == 1}

    def stop(self) -> None:
        """Sends Ctrl-C and checks that no process of Ray is left."""
        self.client.close()
        processes = [] if self._process.poll() is not None else self.processes
        try:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            _, left = psutil.wait_procs(processes, 30)
            assert not left, left
        finally:
            for process in [self._process, *processes]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # The path of a socket is limited to 107 bytes, so the folder's name must be short.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        cluster = Cluster(Path(folder))
        try:
            cluster.wait_ready()
            wait_for(lambda: len(cluster.replicas) == REPLICAS, LOAD_SECONDS, "replicas")
            yield cluster
        except BaseException:
            print(cluster.log)
            raise
        finally:
            cluster.stop()


def embed(cluster: Cluster, count: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Embeds texts in small requests, and compares the vectors with those of the encoder alone."""
    sample = texts(count)
    source, out = write(folder / "texts.jsonl", [{"text": text} for text in sample]), folder / "out.npy"
    ended = call(capsys, "embed", source, out, "--url", cluster.url, "--batch-size", 5, "--concurrency", 8)
    assert ended.status == 0, ended.err
    expected = load(cluster.model, dtype="float32", device="cpu").encode([Input(text) for text in sample])
    np.testing.assert_allclose(read(out), normalize(expected), atol=1e-5)


def test_the_replicas_act_as_one_service(cluster: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    embed(cluster, 200, tmp_path, capsys)


def test_a_scrape_covers_all_replicas(cluster: Cluster) -> None:
    def requests() -> dict[str, float]:
        samples = cluster.samples("l2v_requests_total")
        return {s.labels["replica"]: s.value for s in samples if s.labels["route"] == "/similarity"}

    before = sum(requests().values())
    with ThreadPoolExecutor(8) as pool:
        body = {"queries": "a cat", "documents": texts(20)}
        responses = list(pool.map(lambda _: cluster.client.post("/similarity", json=body), range(40)))
    assert {response.status_code for response in responses} == {200}
    assert sum(requests().values()) == before + 40
    assert requests().keys() == cluster.replicas, "a replica received no request"


def test_errors_are_those_of_the_service(cluster: Cluster) -> None:
    response = cluster.client.post("/embed", json={"inputs": ["fine", ""]})
    assert (response.status_code, response.json()["error"]["param"]) == (422, "inputs[1].text")


def test_a_killed_replica_is_replaced_and_a_bulk_run_continues(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = cluster.replicas
    killed = next(process for process in cluster.processes if "ServeReplica" in process.name())
    timer = threading.Timer(0.3, killed.kill)
    timer.start()
    embed(cluster, 2000, tmp_path, capsys)
    assert timer.finished.is_set(), "the run ended before the replica was killed"
    wait_for(lambda: cluster.replicas - before and len(cluster.replicas) == REPLICAS, LOAD_SECONDS, "another replica")


def test_arguments_without_a_meaning_are_rejected() -> None:
    with pytest.raises(ValidationError, match="modle"):
        ReplicaSettings(modle="demo")
    with pytest.raises(ValidationError, match="http_workers must be 1 on Ray"):
        ReplicaSettings(http_workers=2)
    with pytest.raises(ValidationError, match="name the adapters in lora_modules, and deploy the application again"):
        ReplicaSettings(runtime_adapters="/tmp", api_keys="key")  # noqa: S108


def test_limits_of_the_service_apply_before_those_of_ray() -> None:
    settings = ReplicaSettings(max_requests=7, drain_timeout=11)
    deployment = build(settings)._bound_deployment
    assert deployment.max_ongoing_requests > settings.max_requests
    assert deployment._deployment_config.graceful_shutdown_timeout_s == settings.drain_timeout


def test_a_failed_load_fails_the_health_check_with_the_reason() -> None:
    async def check() -> None:
        replica = Replica(ReplicaSettings(model="nowhere"))
        app = replica.__serve_build_asgi_app__()
        async with app.router.lifespan_context(app):
            await replica.check_health()

    with pytest.raises(RuntimeError, match="nowhere is not a local folder"):
        asyncio.run(check())
