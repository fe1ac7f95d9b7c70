"""Compares scheduling policies: simulated with a measured cost of forward passes, and on the real server.

    python -m bench.scheduling           # simulates with the recorded costs; takes seconds
    python -m bench.scheduling --costs   # measures the costs anew, and simulates
    python -m bench.scheduling --server  # instead runs the policies on real servers, in turn

It uses the built-in model, and writes bench/results/scheduling.json.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from bench import report
from bench.mixes import MIXES, Caller
from bench.origin import commit, machine
from bench.policies import POLICIES
from bench.simulation import Costs, Outcome, Simulation
from l2v.models import Encoding, load
from l2v.models.runtime import LIBRARIES
from tests.chaos.load import closed_loop, open_loop
from tests.chaos.texts import WORDS, ask
from tests.chaos.wire import Reply, Wire

RESULTS = Path(__file__).parent / "results" / "scheduling.json"
_TOKENS = (1, 16, 64, 128, 256, 512, 1024, 2048, 3072, 4096)
_SIMULATED_SECONDS = 30.0
_ON_SERVER = ("round robin", "the same in two classes", "shortest and oldest")


def costs() -> Costs:
    """Seconds of a forward pass by tokens: CPU seconds over threads, since other load disturbs those least."""
    encoder = load("demo")
    found = []
    for tokens in _TOKENS:
        lengths = [28] * (tokens // 28) + [tokens % 28] * bool(tokens % 28)
        batch = [Encoding(array("q", [5]) * length, pooled=1) for length in lengths]
        spent = []
        for _ in range(7):
            started = time.process_time()
            encoder.forward(batch)
            spent.append(time.process_time() - started)
        found.append((tokens, round(min(spent) / (os.cpu_count() or 1), 5)))
    return found


def simulate(measured: Costs) -> dict[str, Any]:
    """The figures by mix and policy."""
    return {
        mix: {
            name: Simulation(policy(), measured).run(callers, _SIMULATED_SECONDS).figures()  # type: ignore[arg-type]
            for name, policy in POLICIES.items()
        }
        for mix, callers in MIXES.items()
    }


class PolicyServer:
    """A server with a policy, at an address."""

    def __init__(self, url: str) -> None:
        self.port = int(url.rpartition(":")[2])
        self._client = httpx.Client(base_url=url, timeout=60)

    def metrics(self) -> tuple[float, float, float]:
        """Tokens, seconds and number of batches so far."""
        names = ("l2v_batch_tokens_sum", "l2v_batch_seconds_sum", "l2v_batch_tokens_count")
        lines = dict(line.rsplit(" ", 1) for line in self._client.get("/metrics").text.splitlines() if line[0] != "#")
        tokens, seconds, batches = (float(lines[name]) for name in names)
        return tokens, seconds, batches


async def _run(server: PolicyServer, callers: tuple[Caller, ...], seconds: float) -> dict[str, float]:
    """Runs a mix on a server once."""
    before = server.metrics()
    wire, outcome = Wire(server.port), Outcome()

    async def call(caller: Caller) -> list[Reply]:
        requests = _bodies(caller)
        if caller.rate:
            return await open_loop(wire, caller.rate, seconds, lambda: next(requests))
        if caller.once:
            await asyncio.sleep(1.0 if len(callers) > 1 else 0.0)
            return list(await asyncio.gather(*(wire.send(next(requests)) for _ in range(caller.clients))))
        return await closed_loop(wire, caller.clients, seconds, lambda: next(requests))

    for caller, replies in zip(callers, await asyncio.gather(*map(call, callers)), strict=True):
        if wrong := {reply.status for reply in replies} - {200}:
            raise RuntimeError(f"the server responded with status {wrong}")
        outcome.latencies[caller.kind] = [reply.seconds for reply in replies]
    await wire.close()
    tokens, busy, batches = (now - then for now, then in zip(server.metrics(), before, strict=True))
    outcome.batches, outcome.busy = [round(tokens / batches)] * round(batches), busy
    return outcome.figures()


def _bodies(caller: Caller) -> Iterator[bytes]:
    """Requests whose texts have the caller's lengths: each word is a token of the built-in model."""
    for lengths in caller.requests():
        yield ask([" ".join(WORDS[place % len(WORDS)] for place in range(length - 1)) for length in lengths])


def on_server(rounds: int, seconds: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each mix with the medians of some rounds by policy. The policies take turns."""
    command = [sys.executable, "-m", "bench.policies"]
    environment = os.environ | LIBRARIES
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin
        assert process.stdout
        servers = {name: PolicyServer(url) for name, url in json.loads(process.stdout.readline()).items()}
        for mix, callers in MIXES.items():
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in _ON_SERVER}
            for _ in range(rounds):
                for name, each in runs.items():
                    each.append(asyncio.run(_run(servers[name], callers, seconds)))
            medians = {
                name: {key: statistics.median(run[key] for run in each) for key in each[0]}
                for name, each in runs.items()
            }
            yield mix, medians
        process.stdin.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scheduling", description=__doc__)
    parser.add_argument("--costs", action="store_true", help="measure the time of forward passes anew")
    parser.add_argument("--server", action="store_true", help="run the policies on real servers instead")
    parser.add_argument("--rounds", type=int, default=3, help="rounds on the servers")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a round on a server")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    if options.costs or "costs" not in results:
        results["costs"] = costs()
    if options.server:
        results["served"] = {}
        results["origin"] = (
            f"`python -m bench.scheduling --server --rounds {options.rounds} --seconds {options.seconds:g}`, "
            f"{datetime.now(UTC).date()}, commit {commit()}, {machine('cpu')}"
        )
        for mix, found in on_server(options.rounds, options.seconds):
            results["served"][mix] = found
            print(report.scheduling({mix: found}), flush=True)
            _write(results)  # for runs that are interrupted
    else:
        results["simulated"] = simulate(results["costs"])
        print(report.scheduling(results["simulated"]))
    _write(results)


def _write(results: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
