"""CPU time and memory of loading a base with two adapters, by stage: `python -m bench.loading --help`.

The checkpoints have random weights in the shape of a published model. All files have checksums, as in the Hub's cache.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModel

from bench.__main__ import RESULTS
from bench.origin import origin
from bench.report import loading
from bench.shapes import SHAPES, Shape
from l2v.models import checksums, load
from l2v.models.runtime import LIBRARIES

RANK = 16
_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_ADAPTERS = ("mntp", "contrastive")


def main() -> None:
    options = _options()
    if options.measure:
        print(json.dumps(measure(options.measure, options.dtype)))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = (options.checkpoints or Path(made)) / f"{options.shape}-adapters"
        if not folder.is_dir():
            write(SHAPES[options.shape], folder)
        # A new process, so that the libraries' own start is part of it.
        command = [sys.executable, "-m", "bench.loading", "--measure", folder, "--dtype", options.dtype]
        environment = {**LIBRARIES, **os.environ}  # as `prepare_libraries` sets before torch is imported
        measured = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    results = {
        **origin("bench.loading"),
        "shape": options.shape,
        "dtype": options.dtype,
        "rank": RANK,
        **json.loads(measured),
    }
    (RESULTS / f"{options.name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(loading(results))


def write(shape: Shape, folder: Path, names: Sequence[str] = _ADAPTERS) -> None:
    """Write a base and adapters for it."""
    shape.write_base(folder / "base")
    checksums.write(folder / "base")
    with torch.device("meta"):
        decoder = AutoModel.from_config(shape.config)
    adapted = get_peft_model(decoder, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=_LINEARS))
    adapted.peft_config["default"].base_model_name_or_path = "../base"
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        weights = get_peft_model_state_dict(adapted, save_embedding_layers=False)
        adapted.peft_config["default"].save_pretrained(folder / name)
        random = {key: 0.02 * torch.randn(weight.shape) for key, weight in weights.items()}
        save_file(random, folder / name / "adapter_model.safetensors", {"format": "pt"})
        checksums.write(folder / name)


def measure(folder: Path, dtype: str) -> dict[str, Any]:
    """Load the encoder in this process.

    Returns:
        Bytes of the weights and of the most anonymous memory at a time; seconds on the clock and of the CPU, also by
        stage, with the computation of checksums, which runs beside the stages; and bytes read from the disk.
    """
    stages = {"starting": 0.0}
    handler = logging.Handler()
    handler.emit = lambda record: stages.setdefault(record.__dict__["stage"], time.process_time())  # type: ignore[method-assign, assignment]
    progress = logging.getLogger("l2v.models.progress")
    progress.addHandler(handler)
    progress.setLevel(logging.INFO)
    with _Peak() as peak:
        started = time.perf_counter()
        encoder = load(str(folder / "base"), [str(folder / name) for name in _ADAPTERS], dtype=dtype)  # type: ignore[arg-type]
        seconds = time.perf_counter() - started
    cpu = time.process_time()
    ends = [*list(stages.values())[1:], cpu]
    return {
        "weights": encoder.weight_bytes,
        "anonymous": peak.bytes,
        "seconds": seconds,
        "cpu": cpu,
        "stages": {name: end - start for (name, start), end in zip(stages.items(), ends, strict=True)},
        "read": _counter("io", "read_bytes"),
    }


class _Peak:
    """The most anonymous memory of this process while active, sampled five times a second."""

    bytes = 0

    def __enter__(self) -> "_Peak":
        self._stop = Event()
        self._thread = Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.2):
            self.bytes = max(self.bytes, 1024 * _counter("status", "RssAnon"))


def _counter(file: str, name: str) -> int:
    lines = Path("/proc/self", file).read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.loading", description=__doc__)
    parser.add_argument("--shape", default="1.3b", choices=SHAPES)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--checkpoints", type=Path, help="folder in which to keep the checkpoints")
    parser.add_argument("--name", default="loading", help="file name of the results")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
