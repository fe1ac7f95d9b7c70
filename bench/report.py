"""The report of a run: results as JSON, a Markdown page of tables, and a plot."""

import json
import statistics
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Suffix of the names of servers.
_SERVED = " over HTTP"
# Older results have the cosine of the first text only.
_COSINES = {"least_cosine": "lowest cosine to l2v", "cosine": "cosine to l2v, first text"}
_OF_ALL = "least_cosine_of_all"
# Rounding, also to 8 bits, leaves more than this of two vectors' cosine; other attention or pooling leaves less.
_SAME = 0.98
# With fewer requests, the 99th percentile is hardly different from the maximum.
_MIN_REQUESTS = 100


def write(results: dict[str, Any], folder: Path, name: str) -> None:
    """Write `name`.json, `name`.md and `name`.png to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = tables(results)
    if find_spec("matplotlib"):  # a machine with a GPU may lack it
        _plot(results, folder / f"{name}.png")
        page = f"![Tokens per second]({name}.png)\n\n{page}"
    (folder / f"{name}.md").write_text(f"{page}\n", encoding="utf-8")


def throughput(found: dict[str, Any], title: str) -> str:
    """The table of one workload."""
    sizes = f"{found['tokens']:,} tokens ({found['padded']:,} in padded batches of 32)"
    first, *_ = found["engines"].values()
    cosine = next(name for name in _COSINES if name in first)
    columns = ["engine", "tokens/s", "texts/s", "l2v is faster by", "efficiency", "GB", _COSINES[cosine]]
    if _OF_ALL in first:
        columns += ["with all tokens pooled", "same vectors"]
    lines = [
        f"**{title}**: {found['texts']:,} texts, {sizes}",
        "",
        f"| {' | '.join(columns)} |",
        f"{'|---' * len(columns)}|",
    ]
    for name, engine in found["engines"].items():
        seconds = statistics.median(engine["seconds"])
        cells = [
            name,
            tokens_per_second(found, name),
            f"{found['texts'] / seconds:,.1f}",
            f"{faster:.2f}×" if (faster := speedup(found, name)) else "",
            f"{efficiency(found, name):.2f}",
            f"{engine['memory'] / 1e9:.1f}" if engine["memory"] else "",
            f"{engine[cosine]:.4f}",
        ]
        if _OF_ALL in first:
            cells += [f"{engine[_OF_ALL]:.4f}", same_vectors(engine)]
        lines.append(f"| {' | '.join(cells)} |")
    rate = statistics.median(found["rates"]) / 1e9
    lines += ["", f"Plain matrix products reached {rate:,.0f} GFLOP/s during these runs."]
    return "\n".join(lines)


def same_vectors(engine: dict[str, float]) -> str:
    """Whether an engine computes our vectors."""
    if engine["least_cosine"] >= _SAME:
        return "yes"
    return "if all tokens are pooled" if engine[_OF_ALL] >= _SAME else "no"


def tokens_per_second(found: dict[str, Any], name: str) -> str:
    """The median of all rounds, as the tables show it."""
    return f"{found['tokens'] / statistics.median(found['engines'][name]['seconds']):,.0f}"


def speedup(found: dict[str, Any], name: str) -> float | None:
    """The factor by which the first engine is faster: the median of the ratios of all rounds.

    A server is compared with the first engine's server; None if that was not measured.
    """
    first = next(iter(found["engines"]))
    ours = found["engines"].get(f"{first}{_SERVED}" if name.endswith(_SERVED) else first)
    if ours is None:
        return None
    pairs = zip(found["engines"][name]["seconds"], ours["seconds"], strict=True)
    return statistics.median(other / own for other, own in pairs)


def efficiency(found: dict[str, Any], name: str) -> float:
    """Useful FLOPs, relative to what plain matrix products would do in the same time."""
    pairs = zip(found["rates"], found["engines"][name]["seconds"], strict=True)
    return statistics.median(found["flops"] / (rate * seconds) for rate, seconds in pairs)


def tables(results: dict[str, Any]) -> str:
    """All tables of a run, with machine, command and versions."""
    versions = "\n".join(
        f"- {venv}: " + ", ".join(f"{library} {version}" for library, version in libraries.items())
        for venv, libraries in results["versions"].items()
    )
    when = f"{results['date']}, commit {results['commit']}"
    parts = [f"On {results['machine']}, {when}, {results['dtype']}, `{results['command']}`:"]
    for shape, found in results["shapes"].items():
        parts += [throughput(task, f"{shape}, {kind}") for kind, task in found["workloads"].items()]
        if found["latency"]:
            parts += [_latencies(found["latency"], shape)]
        if results["answer"] and "mixed" in found["workloads"]:
            parts += [_serialisation(results["answer"], found["workloads"]["mixed"], shape)]
        ready = ", ".join(f"{engine} {seconds:.1f} s" for engine, seconds in found["ready"].items())
        parts += [f"Time to ready, {shape}: {ready}."]
    return "\n\n".join([*parts, "Versions:", versions])


def scheduling(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """A row for each mix and scheduling policy, times in milliseconds; one row where all policies come to the same."""
    kinds = ("small mean", "small p99", "medium mean", "large mean", "large p99")
    lines = [f"| requests | policy | {' | '.join(kinds)} | tokens/s | fill |", "|---" * (len(kinds) + 4) + "|"]
    for mix, policies in found.items():
        rows = {}
        for policy, figures in policies.items():
            times = [f"{1000 * figures[kind]:,.0f}" if kind in figures else "" for kind in kinds]
            rows[policy] = " | ".join([*times, f"{figures['tokens/s']:,.0f}", f"{figures['fill']:.0%}"])
        if len(set(rows.values())) == 1:
            rows = {"any": next(iter(rows.values()))}
        for number, (policy, row) in enumerate(rows.items()):
            lines.append(f"| {'' if number else mix} | {policy} | {row} |")
    return "\n".join(lines)


def _serialisation(seconds: float, mixed: dict[str, Any], shape: str) -> str:
    first, *_ = mixed["engines"].values()
    forward = 1000 * statistics.median(first["seconds"]) / mixed["texts"]
    return (
        f"Serialising 1,000 vectors of 4,096 numbers as JSON takes {seconds:.2f} s, {seconds / forward:.1%} of the "
        f"time that {shape} needs for 1,000 mixed texts."
    )


def _latencies(found: dict[str, dict[int, dict[str, float]]], shape: str) -> str:
    lines = [
        f"**{shape}, one query per request**, in milliseconds",
        "",
        "| server | clients | requests | p50 | p99 | max | forward | requests/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for server, rows in found.items():
        for clients, row in rows.items():
            known = row if row["requests"] >= _MIN_REQUESTS else row | {"p99": None}
            times = [known.get(name) for name in ("p50", "p99", "max", "forward")]
            cells = " | ".join(f"{1000 * time:.1f}" if time else "" for time in times)
            lines.append(f"| {server} | {clients} | {row['requests']} | {cells} | {row['requests_per_second']:.1f} |")
    return "\n".join(lines)


def _plot(results: dict[str, Any], file: Path) -> None:
    from matplotlib.figure import Figure

    shapes = results["shapes"]
    figure = Figure(figsize=(9, 3.2 * len(shapes)), layout="constrained")
    for axes, (shape, found) in zip(figure.subplots(len(shapes), squeeze=False)[:, 0], shapes.items(), strict=True):
        kinds = list(found["workloads"])
        engines = list(found["ready"])
        for number, engine in enumerate(engines):
            # None if the run has not measured that yet.
            measured = [(task["tokens"], task["engines"].get(engine)) for task in found["workloads"].values()]
            heights = [tokens / statistics.median(own["seconds"]) if own else 0 for tokens, own in measured]
            positions = [kind + number * 0.8 / len(engines) for kind in range(len(kinds))]
            axes.bar(positions, heights, 0.75 / len(engines), label=engine)
        axes.set_xticks([kind + 0.4 for kind in range(len(kinds))], kinds)
        axes.set(title=shape, ylabel="tokens/s")
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(file, dpi=110)


def loading(results: dict[str, Any]) -> str:
    """The paragraph about a run of `bench.loading`."""
    weights = results["weights"] / 1e9
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in results["stages"].items())
    return (
        f"On {results['machine']}, {results['date']}, commit {results['commit']}, `{results['command']}`: "
        f"{results['shape'].upper()} in {results['dtype']} ({weights:.1f} GB) with two adapters of rank "
        f"{results['rank']} is ready after {results['cpu']:.0f} s of CPU time, {results['cpu'] / weights:.1f} s a GB: "
        f"{stages}. Checksums are computed meanwhile and count towards these. The clock showed "
        f"{results['seconds']:.0f} s, with {results['read'] / 1e9:.1f} GB read from the disk. Anonymous memory was at "
        f"most {results['anonymous'] / results['weights']:.2f} × the weights."
    )


def backlog(results: dict[str, Any]) -> str:
    """The paragraph about a run of `bench.backlog`. The aim is a ratio of 0.95 at least."""
    few, many = results["rates"].values()
    fewer, more = (f"{int(waiting):,}" for waiting in results["rates"])
    ratio = statistics.median(one / other for one, other in zip(many, few, strict=True))
    return (
        f"With {more} requests waiting, the built-in model computes {statistics.median(many):,.0f} tokens a second, "
        f"and {statistics.median(few):,.0f} with {fewer}: {ratio:.3f} × the rate, median of {len(many)} rounds "
        f"(aim: 0.95, {'reached' if ratio >= 0.95 else '**missed**'}). {_origin(results)}."
    )


def saturation(results: dict[str, Any]) -> str:
    """The paragraph about a run of `bench.saturation`. The aim is 0.95 of the throughput at least."""
    ratios = [in_process / over_http for in_process, over_http in results["seconds"]]
    rounds = ", ".join(f"{ratio:.3f}" for ratio in ratios)
    ratio = statistics.median(ratios)
    return (
        f"A server that always has enough to do reaches {ratio:.3f} of the throughput in process, with 135M parameters "
        f"and mixed texts (rounds: {rounds}; aim: 0.95, {'reached' if ratio >= 0.95 else '**missed**'}). "
        f"{_origin(results)}."
    )


def _origin(results: dict[str, Any]) -> str:
    return f"`{results['command']}`, {results['date']}, commit {results['commit']}, {results['machine']}"


def forward(results: dict[str, Any]) -> str:
    """The table of a run of `bench.forward`."""
    total = f" of {results['device_memory'] / 1e9:.0f} GB" if results["device_memory"] else ""
    origin = (
        f"On {results['machine']}, {results['date']}, commit {results['commit']}, torch {results['torch']}, "
        f"`{results['command']}`: {results['shape'].upper()} in {results['dtype']}, "
        f"{results['weights'] / 1e9:.1f} GB of weights{total}; a token budget of {results['budget']:,} "
        f"(default {results['default_budget']:,}) fits."
    )
    lines = [
        origin,
        "",
        "| texts | tokens | forward pass, ms | tokens/s | host idle | peak memory, GB |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["batches"]:
        cells = [
            f"{row['texts']:,}",
            f"{row['tokens']:,}",
            f"{1000 * row['seconds']:.1f}",
            f"{row['tokens'] / row['seconds']:,.0f}",
            f"{1 - row['host'] / row['seconds']:.0%}",
            f"{row['memory'] / 1e9:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# The least speed of each case, as a share of a merged copy's; those of texts are for the shape 1.3b.
_GOALS = {"no module": 0.98, "1 module": 0.95, "8 modules": 0.9, "64 modules": 0.8}
_QUERY_GOALS = {"no module": 0.98, "1 module": 1 / 1.15}


def adapters(results: dict[str, Any]) -> str:
    """The tables of a run of `bench.adapters`."""
    when = f"{results['date']}, commit {results['commit']}, {results['dtype']}"
    parts = [f"On {results['machine']}, {when}, rank {results['rank']} in all linear layers, `{results['command']}`:"]
    for shape, found in results["shapes"].items():
        lines = [
            f"**{shape}**: the base has {found['base'] / 1e9:.2f} GB, a module {found['module'] / 1e6:.1f} MB",
            "",
            "| forward passes | tokens | seconds | CPU seconds | merged: of the time | of the CPU time | goal |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, case in found["cases"].items():
            inputs, _, modules = name.partition(", ")
            merged = found["cases"][f"{inputs}, merged"]
            seconds, cpu = (statistics.median(case[kind]) for kind in ("seconds", "cpu"))
            ratios = [
                statistics.median(a / b for a, b in zip(merged[kind], case[kind], strict=True))
                for kind in ("seconds", "cpu")
            ]
            goals = _QUERY_GOALS if inputs == "query" else _GOALS if shape.startswith("1.3b") else {}
            goal = goals.get(modules, 0.0)
            verdict = f"{goal:.2f}, {'reached' if ratios[0] >= goal else 'missed'}" if goal else ""
            cells = f"{seconds:.4f} | {cpu:.4f} | {ratios[0]:.2f} | {ratios[1]:.2f} | {verdict}"
            lines.append(f"| {name} | {case['tokens']:,} | {cells} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
