"""The metrics scraped by a real Prometheus, the alerts, and the dashboard."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.programs import program
from tests.serving import LOAD_SECONDS, ServerProcess, free_port, wait_for

DOCKER = Path(__file__).parents[2] / "docker"
NAMES = [
    "l2v_requests_total",
    "l2v_request_seconds",
    "l2v_stage_seconds",
    "l2v_inputs_total",
    "l2v_tokens_total",
    "l2v_truncated_inputs_total",
    "l2v_batch_tokens",
    "l2v_batch_inputs",
    "l2v_batch_seconds",
    "l2v_batch_budget_tokens",
    "l2v_batches_total",
    "l2v_queue_tokens",
    "l2v_queue_inputs",
    "l2v_requests_in_flight",
    "l2v_rejected_total",
    "l2v_engine_up",
    "l2v_model_info",
    "l2v_device_memory_bytes",
]


@pytest.fixture(scope="module")
def busy(demo: ServerProcess) -> ServerProcess:
    """The service after traffic of every kind."""
    for number in range(5):
        demo.client.post("/embed", json={"inputs": ["a text"] * (number + 1) + ["word " * 900]})
        demo.client.post("/similarity", json={"queries": "a", "documents": ["b", "c"]})
    demo.client.post("/embed", json={"inputs": ""})
    demo.client.get("/nowhere")
    return demo


class Prometheus:
    """A Prometheus that scrapes one service, with the configuration of the Compose file."""

    def __init__(self, folder: Path, target: str) -> None:
        config = (DOCKER / "prometheus.yml").read_text()
        assert "l2v:8080" in config
        (folder / "prometheus.yml").write_text(
            config.replace("l2v:8080", target).replace("scrape_interval: 5s", "scrape_interval: 1s")
        )
        shutil.copy(DOCKER / "alerts.yml", folder)
        self.url = f"http://127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            [
                program("prometheus", "prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stderr=subprocess.DEVNULL,
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        try:
            response = httpx.get(f"{self.url}/api/v1/query", params={"query": expression})
        except httpx.TransportError:
            return []
        if response.status_code == 503:
            return []  # Prometheus is starting
        content = response.json()
        assert content["status"] == "success", content
        result: list[dict[str, Any]] = content["data"]["result"]
        return result

    def value(self, expression: str) -> float:
        total = f"sum({expression})"  # over the series of all models
        wait_for(lambda: self.query(total), what=expression)  # a scrape may have failed
        (sample,) = self.query(total)
        return float(sample["value"][1])


@pytest.fixture(scope="module")
def prometheus(busy: ServerProcess) -> Iterator[Prometheus]:
    program("prometheus", "prometheus")
    with tempfile.TemporaryDirectory() as folder:
        running = Prometheus(Path(folder), busy.url.removeprefix("http://"))
        try:
            wait_for(lambda: running.query('up{job="l2v"} == 1'), LOAD_SECONDS, "scrape")
            yield running
        finally:
            running.process.terminate()
            running.process.wait(30)


def test_promtool_finds_no_problems(busy: ServerProcess) -> None:
    text = busy.client.get("/metrics").text
    checked = subprocess.run(
        [program("promtool", "prometheus"), "check", "metrics"], check=False, input=text, capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_every_metric_is_declared(busy: ServerProcess) -> None:
    declared = re.findall(r"^# TYPE (l2v_\w+)", busy.client.get("/metrics").text, re.MULTILINE)
    assert sorted(declared) == sorted(NAMES)


def test_alerts_fire_as_the_rule_tests_expect() -> None:
    command = [program("promtool", "prometheus"), "test", "rules", str(DOCKER / "alerts_test.yml")]
    tested = subprocess.run(command, check=False, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_prometheus_loads_the_alerts_and_none_fires(busy: ServerProcess, prometheus: Prometheus) -> None:
    groups = httpx.get(f"{prometheus.url}/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == 7
    assert not [rule["name"] for rule in rules if rule["state"] == "firing"]


def test_prometheus_scrapes_the_traffic(busy: ServerProcess, prometheus: Prometheus) -> None:
    wait_for(lambda: prometheus.query('l2v_requests_total{route="/similarity",status="200"}'), what="samples")
    assert prometheus.value('l2v_requests_total{route="/embed",status="200"}') >= 5
    assert prometheus.value('l2v_requests_total{route="/embed",status="422"}') >= 1
    assert prometheus.value('l2v_requests_total{route="other",status="404"}') >= 1
    assert prometheus.value("l2v_truncated_inputs_total") >= 5
    assert prometheus.value("l2v_inputs_total") >= 30
    assert prometheus.value("l2v_tokens_total") > prometheus.value("l2v_inputs_total")
    assert prometheus.value('l2v_stage_seconds_count{stage="forward"}') >= 10
    assert prometheus.value("l2v_batch_tokens_sum") >= prometheus.value("l2v_tokens_total")  # includes the warm-up
    assert prometheus.value("l2v_engine_up") == 1
    assert prometheus.value("l2v_queue_tokens") == 0
    (info,) = prometheus.query("l2v_model_info")
    assert (info["metric"]["model"], info["metric"]["device"]) == ("demo", "cpu")


DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "l2v.json").read_text())


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("expression", expressions())
def test_each_query_of_the_dashboard_has_data(expression: str, busy: ServerProcess, prometheus: Prometheus) -> None:
    families = set(re.findall(r"^# TYPE (\w+)", busy.client.get("/metrics").text, re.MULTILINE))
    for name in re.findall(r"\b(?:l2v|process)_\w+", expression):
        assert name in families or re.sub(r"_(bucket|sum|count)$", "", name) in families
    rates = expression.replace("$__rate_interval", "1m")
    for variable in DASHBOARD["templating"]["list"]:
        rates = rates.replace(f"${variable['name']}", variable["allValue"])
    assert "$" not in rates
    wait_for(lambda: prometheus.query(rates), what=f"data for {rates}")


def test_the_query_of_the_autoscaler_yields_one_number(busy: ServerProcess, prometheus: Prometheus) -> None:
    scaled = yaml.safe_load((DOCKER / "kubernetes/components/autoscaling/scaledobject.yaml").read_text())
    (trigger,) = scaled["spec"]["triggers"]
    assert prometheus.value(trigger["metadata"]["query"]) == 0  # nothing waits
    assert float(trigger["metadata"]["threshold"]) > 0


def test_the_dashboard_reads_the_provisioned_datasource() -> None:
    datasource = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {datasource["datasources"][0]["uid"]}


def test_each_panel_of_the_dashboard_has_a_description_and_a_unit() -> None:
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in DASHBOARD["panels"])


@pytest.mark.parametrize("variable", DASHBOARD["templating"]["list"], ids=lambda variable: variable["name"])
def test_each_variable_of_the_dashboard_has_values(variable: dict[str, Any], prometheus: Prometheus) -> None:
    definition = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
    assert definition
    wait_for(lambda: prometheus.query(f'{definition[1]}{{{definition[2]}!=""}}'), what=variable["definition"])
