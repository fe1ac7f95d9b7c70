"""Runs two fuzzers against a server: ours mutates requests, schemathesis generates them from the OpenAPI document."""

import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.fuzz.bodies import MARK, Attempt, attempt
from tests.fuzz.contract import Contract
from tests.serving import ServerProcess

_CLIENTS = 4
_CONFIG = Path(__file__).with_name("schemathesis.toml")


@dataclass
class Figures:
    """The results of a campaign.

    Attributes:
        cases: number of requests sent.
        statuses: number of responses by status.
        problems: invalid or missing responses, each with its request.
        unaccepted: operations that rejected every request, which leaves them mostly untested.
    """

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    unaccepted: list[str] = field(default_factory=list)


def fuzz(server: ServerProcess, cases: int, seed: int) -> Figures:
    """Sends `cases` malformed requests, determined by the seed."""
    contract = Contract(server.client.get("/openapi.json").json())
    figures = Figures()

    def send(client: httpx.Client, number: int) -> tuple[Attempt, httpx.Response | httpx.HTTPError]:
        made = attempt(random.Random(f"{seed} {number}"))
        headers = [(name, value.encode("latin-1")) for name, value in made.headers.items()]
        try:
            url = client.base_url.copy_with(raw_path=made.path.encode())
            return made, client.request(made.method, url, content=made.content, headers=headers)
        except httpx.HTTPError as error:
            return made, error

    with ThreadPoolExecutor(_CLIENTS) as pool, httpx.Client(base_url=server.url, timeout=60) as client:
        for made, response in pool.map(lambda number: send(client, number), range(cases)):
            figures.cases += 1
            if isinstance(response, httpx.HTTPError):
                figures.problems.append(f"{response!r}: {made}")
                continue
            figures.statuses[response.status_code] += 1
            if problem := contract.problem(response):
                figures.problems.append(f"{problem}: {made}")
    figures.problems += leaks(server)
    return figures


def leaks(server: ServerProcess) -> list[str]:
    """Reports callers' texts found in the log or the metrics, and bugs found in the log."""
    outputs = {"the log": server.log, "the metrics": server.client.get("/metrics").text}
    found = [f"{name} contain a caller's text" for name, content in outputs.items() if MARK in content]
    return found + [f"a bug is logged: {line}" for line in server.log_lines if line["message"] == "bug"]


def schemathesis(server: ServerProcess, examples: int, seed: int) -> Figures:
    """Runs all checks of schemathesis, with up to `examples` generated cases per operation and phase."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [
            *(
                Path(sys.executable).with_name("schemathesis"),
                "--config-file",
                _CONFIG,
                "run",
                f"{server.url}/openapi.json",
            ),
            *("--checks", "all", "--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure"),
            *("--no-shrink", "--report", "json", "--report-json-path", report.name),
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tempfile.gettempdir())
        content = Path(report.name).read_text()
    if not content:
        raise RuntimeError(done.stdout + done.stderr)
    return _read(json.loads(content), done.stdout)


def _read(report: dict[str, Any], output: str) -> Figures:
    cases = report["test_cases"]["generated"]
    failures = [f"{failure['title']}: {failure['operations']}" for failure in report["failures"]]
    problems = failures + [str(error) for error in report["errors"]]
    if problems:
        problems.append(output[-8000:])
    unaccepted = [
        operation
        for operation, phases in report["valid_rates"].items()
        if not any(phase["accepted"] for phase in phases.values())
    ]
    return Figures(cases, problems=problems, unaccepted=unaccepted)
