"""Throughput with a short and with a long queue: scheduling must not take longer when thousands of requests wait.

    python -m bench.backlog

It uses the built-in model: the faster the forward pass, the more visible a slow queue. Results go to
bench/results/backlog.json, from which `make docs` writes a sentence.
"""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import cycle

from bench import report
from bench.__main__ import RESULTS
from bench.origin import origin
from bench.workloads import workload
from l2v.app.engine.jobs import Result
from l2v.app.engine.scheduler import Scheduler
from l2v.app.metrics import Metrics
from l2v.models import Encoder, Encoding, Input, load
from l2v.models.batch import token_budget

WAITING = (8, 4000)
_ROUNDS, _SECONDS = 5, 8.0


def rate(encoder: Encoder, encodings: Iterator[Encoding], waiting: int, seconds: float) -> float:
    """Tokens per second with a constant number of requests in the queue: each that completes submits another."""
    scheduler = Scheduler(encoder.forward, token_budget(encoder.device), 10**9, 600, Metrics())
    done = [0]
    stopped = threading.Event()

    def submit() -> None:
        encoding = next(encodings)

        def completed(future: "Future[Result]") -> None:
            if not stopped.is_set() and not future.cancelled():
                done[0] += len(encoding)
                submit()

        futures.append(scheduler.submit([encoding]))
        futures[-1].add_done_callback(completed)

    futures: list[Future[Result]] = []
    for _ in range(waiting):
        submit()
    started, before = time.perf_counter(), done[0]
    time.sleep(seconds)
    tokens_per_second = (done[0] - before) / (time.perf_counter() - started)
    stopped.set()
    for future in futures:
        future.cancel()
    scheduler.close(60)
    return tokens_per_second


def main() -> None:
    encoder = load("demo")
    texts = [Input(text) for text in workload("long", 64).texts]
    encodings = cycle([encoding for encoding in encoder.tokenize(texts) if len(encoding) > encoder.max_length // 2])
    rates: dict[int, list[float]] = {waiting: [] for waiting in WAITING}
    for _ in range(_ROUNDS):
        for waiting, rounds in rates.items():
            rounds.append(rate(encoder, encodings, waiting, _SECONDS))
    results = {**origin("bench.backlog"), "rates": {str(waiting): rounds for waiting, rounds in rates.items()}}
    (RESULTS / "backlog.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(report.backlog(results))


if __name__ == "__main__":
    main()
