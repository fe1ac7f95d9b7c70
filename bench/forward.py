"""What forward passes ask of the host and of the device's memory, by the number of tokens.

    python -m bench.forward [--shape 1.3b] [--dtype bfloat16] [--device cuda]

The host prepares a batch and starts its kernels, and then waits for the vectors. Its idle share is what remains for
other work of the process; near 0, the host holds the device up.
"""

import argparse
import json
import statistics
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

import torch

from bench.__main__ import RESULTS
from bench.origin import origin
from bench.report import forward
from bench.shapes import SHAPES
from bench.worker import peak_memory
from l2v.models import Encoder, Encoding, load
from l2v.models.batch import token_budget
from l2v.models.warm_up import warm_up

# Tokens of a short query with its instruction; texts of a batch.
_LENGTH, _TEXTS = 38, (1, 8, 32, 128)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as made:
        checkpoints = options.checkpoints or Path(made)
        checkpoints.mkdir(parents=True, exist_ok=True)
        encoder = load(str(SHAPES[options.shape].write(checkpoints)), dtype=options.dtype, device=options.device)
        budget = warm_up(encoder, options.tokens)
        batches = sorted({*(texts for texts in _TEXTS if texts * _LENGTH < budget), max(1, budget // _LENGTH)})
        rows = [measure(encoder, texts, options.rounds) for texts in batches]
    results = {
        **origin("bench.forward", options.device),
        "torch": torch.__version__,
        "shape": options.shape,
        "dtype": encoder.dtype,
        "weights": encoder.weight_bytes,
        "device_memory": _device_memory(options.device),
        "default_budget": token_budget(torch.device(options.device)),
        "budget": budget,
        "batches": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{options.name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(forward(results))


def measure(encoder: Encoder, texts: int, rounds: int) -> dict[str, Any]:
    """Run forward passes of one size.

    Returns:
        The number of `texts` and `tokens`; the medians of the `seconds` of a pass and of those that the `host` needs
        until it waits for the device; and the peak `memory` in bytes, with the weights.
    """
    encodings = [Encoding(array("q", range(2, 2 + _LENGTH)), pooled=_LENGTH // 2)] * texts
    seconds, host = [], []
    encoder.forward(encodings)
    peak_memory(encoder.device.type)  # resets the peak
    for _ in range(rounds):
        started = time.perf_counter()
        with torch.inference_mode():
            _, vectors = encoder._compute(encodings)  # noqa: SLF001 - `forward` up to the wait
            host.append(time.perf_counter() - started)
            vectors.cpu()
        seconds.append(time.perf_counter() - started)
    return {
        "texts": texts,
        "tokens": texts * _LENGTH,
        "seconds": statistics.median(seconds),
        "host": statistics.median(host),
        "memory": peak_memory(encoder.device.type),
    }


def _device_memory(device: str) -> int | None:
    return torch.cuda.get_device_properties(device).total_memory if device == "cuda" else None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.forward", description=__doc__)
    parser.add_argument("--shape", default="1.3b", choices=SHAPES)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32", "int8", "fp8"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--tokens", type=int, help="token budget of the largest batch (default: the device's)")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--checkpoints", type=Path, help="folder in which to keep the checkpoints")
    parser.add_argument("--name", default="forward", help="file name of the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
