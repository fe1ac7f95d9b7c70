"""The tables of `bench.ceiling`."""

import math
from typing import Any

FRONT_END, ENGINE, LOAD = "front end", "engine", "wrk"
# Front ends that are busier than this make requests wait for each other.
_UTILIZATION = 0.8
_RATES = (400, 1000, 2000, 2700, 12_000)
_TYPICAL = "/v1/embeddings, base64"


def table(results: dict[str, Any]) -> str:
    """A table of the measured rates, beside the rates that the CPU times predict."""
    columns = ["request", "`http_workers`", "requests/s", "predicted", "p50 ms", "p99 ms"]
    columns += ["front end, CPU ms", "engine", "transport", "wrk"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    alone = results["requests"].get("1", {})
    for name in next(iter(results["requests"].values())):
        for workers, found in results["requests"].items():
            one, cpu = found[name], found[name]["cpu"]
            transport = ""
            if ENGINE in cpu and name in alone:
                transport = f"{max(0.0, cpu[FRONT_END] + cpu[ENGINE] - alone[name]['cpu'][FRONT_END]):.2f}"
            cells = [
                name, workers, f"{one['rate']:,.0f}", f"{predicted(one, int(workers)):,.0f}", f"{one['p50']:.1f}",
                f"{one['p99']:.1f}", f"{cpu[FRONT_END]:.2f}", f"{cpu[ENGINE]:.2f}" if ENGINE in cpu else "",
                transport, f"{cpu[LOAD]:.3f}",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    cores = [one["cores"] for found in results["requests"].values() for one in found.values()]
    memory = ", ".join(f"{kind} {size / 2**20:.0f} MiB" for kind, size in list(results["memory"].values())[-1].items())
    explanation = (
        "With one process, its CPU time stands in the column of the front end. The transport is what front end and "
        "engine take together beyond one process; the columns before it contain it."
    )
    source = (
        f"`{results['command']}`, {results['date']}, commit {results['commit']}, {results['cores']} cores, of which "
        f"other programs left {min(cores):.1f} to {max(cores):.1f}. Memory of one process alone: {memory}."
    )
    return "\n".join([*lines, "", explanation, "", source])


def predicted(found: dict[str, Any], workers: int) -> float:
    """Requests per second by CPU time: what the cores, the front ends or the engine can do, whichever is least."""
    cpu = found["cpu"]
    limits = [found["cores"] / sum(cpu.values()), workers / cpu[FRONT_END], 1 / cpu[LOAD]]
    if cpu.get(ENGINE):
        limits.append(1 / cpu[ENGINE])
    return 1000 * min(limits)


def needed(results: dict[str, Any]) -> str:
    """How many services and front ends a rate of requests takes."""
    found = results["requests"]
    alone = found["1"][_TYPICAL]["cpu"][FRONT_END]
    several = found[max(found, key=int)][_TYPICAL]["cpu"]
    front_end, engine = several[FRONT_END], several[ENGINE]
    lines = [
        "| short requests/s | services | `http_workers` of each | busy cores, without forward passes |",
        "|---" * 4 + "|",
    ]
    for rate in _RATES:
        if rate * alone <= 1000 * _UTILIZATION:
            services, workers, cores = 1, 1, rate * alone / 1000
        else:
            services = math.ceil(rate * engine / 1000 / _UTILIZATION)
            workers = max(2, math.ceil(rate / services * front_end / 1000 / _UTILIZATION))
            cores = rate * (front_end + engine) / 1000
        lines.append(f"| {rate:,} | {services} | {workers} | {cores:.1f} |")
    source = (
        f"Computed from the CPU time of a short request to {_TYPICAL}, 4,096 dimensions: {front_end:.2f} ms in the "
        f"front end and {engine:.2f} ms in the engine (`{results['command']}`, {results['date']}, "
        "`bench/results/ceiling.md`, on a CPU that other programs used too: measure yours), with no process busy more "
        f"than {_UTILIZATION:.0%} of the time. Several services on one card each hold the weights; requests with "
        "several texts take less per text."
    )
    return "\n".join([*lines, "", source])
