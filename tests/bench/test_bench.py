"""The benchmark: its computations, and a worker with a real encoder."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, LlamaConfig

from bench import measure, report
from bench.engines import LibraryEngine, Round
from bench.floor import matmul_rate, useful_flops
from bench.origin import commit
from bench.shapes import Shape
from bench.workloads import INSTRUCTION, WORKLOADS, Workload, for_llama_cpp, workload

ROOT = Path(__file__).parents[2]
TINY = LlamaConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
    vocab_size=8192, bos_token_id=0, eos_token_id=1, pad_token_id=1,
)  # fmt: skip


@pytest.mark.parametrize("length", [1, 7, 64])
def test_useful_flops_equal_torchs_count(length: int) -> None:
    """Compare with torch's count of FLOPs for transformers' attention."""
    model = AutoModel.from_config(TINY, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.ones(1, length, dtype=torch.int64))
    assert counter.get_total_flops() == useful_flops(TINY, [length])
    assert useful_flops(TINY, [length] * 3) == 3 * useful_flops(TINY, [length])


def test_workloads_have_the_documented_lengths_and_are_reproducible() -> None:
    words = {name: sorted(len(text.split()) for text in workload(name, 400).texts) for name in WORKLOADS}
    assert words["mixed"][0] >= 3
    assert words["mixed"][-1] <= 330
    assert 33 <= words["mixed"][200] <= 47
    assert (words["queries"][0], words["queries"][-1]) == (5, 20)
    assert workload("queries", 3).instruction == INSTRUCTION
    assert workload("mixed", 5) == workload("mixed", 5)


def test_a_worker_is_measured_and_reported(tmp_path: Path) -> None:
    shape = Shape("tiny", TINY, {})
    folder = shape.write(tmp_path)
    task = workload("long", 3)
    lengths = shape.lengths(folder, task)
    assert lengths == [512] * 3
    with LibraryEngine("l2v", "l2v", Path(sys.executable), folder, "bfloat16", "cpu") as engine:
        throughput = measure.Throughput(task, lengths)
        throughput.found["flops"] = useful_flops(TINY, lengths)
        throughput.measure([engine], 2)
        # Engines that run one after another, as on a GPU, are compared with the first engine too.
        with LibraryEngine("again", "l2v", Path(sys.executable), folder, "float32", "cpu") as other:
            throughput.measure([other], 2)
    found = throughput.found
    assert found["tokens"] == found["padded"] == 3 * 512
    assert len(found["rates"]) == len(found["engines"]["l2v"]["seconds"]) == 2
    assert found["engines"]["l2v"]["least_cosine"] == pytest.approx(1)
    assert 0.5 < found["engines"]["l2v"]["least_cosine_of_all"] <= 1
    assert 0.99 < found["engines"]["again"]["least_cosine"] < 1
    assert 10**8 < found["engines"]["again"]["memory"] < 10**10
    assert report.speedup(found, "l2v") == 1
    assert report.speedup(found, "again") > 0
    assert 0 < report.efficiency(found, "l2v") < 1
    assert "| l2v | " in report.throughput(found, "tiny, long")


def test_intermediate_results_are_written(tmp_path: Path) -> None:
    """On a GPU the second engine starts after the first one has run all workloads."""

    def found(**seconds: float) -> dict[str, Any]:
        engines = {name: {"seconds": [each], "memory": 0, "least_cosine": 1.0} for name, each in seconds.items()}
        return {"texts": 1, "tokens": 10, "padded": 10, "flops": 1, "rates": [1.0], "engines": engines}

    shape = {"workloads": {"mixed": found(ours=1, other=2), "long": found(ours=1)}, "latency": {}}
    run = {"date": "", "machine": "", "commit": "", "dtype": "", "command": "", "versions": {}, "answer": None}
    report.write(run | {"shapes": {"tiny": shape | {"ready": {"ours": 1.0, "other": 2.0}}}}, tmp_path, "cuda")
    assert "| other | 5 |" in (tmp_path / "cuda.md").read_text()
    assert (tmp_path / "cuda.png").is_file()


def test_a_server_is_compared_with_our_server() -> None:
    seconds = {"l2v": [1.0], "l2v over HTTP": [2.0], "Infinity over HTTP": [6.0], "llm2vec": [4.0]}
    found = {"engines": {name: {"seconds": each} for name, each in seconds.items()}}
    assert [report.speedup(found, name) for name in seconds] == [1, 1, 3, 4]
    del found["engines"]["l2v over HTTP"]
    assert report.speedup(found, "Infinity over HTTP") is None


def test_the_lowest_cosine_of_all_texts_is_reported() -> None:
    class Engine:
        name, ready_seconds = "l2v", 0.0

        def __init__(self, *vectors: list[float]) -> None:
            self.vectors = np.array(vectors, np.float32)

        def run(self, workload: Workload) -> Round:
            return Round(1.0, 0, self.vectors)

    throughput = measure.Throughput(workload("mixed", 2), [5, 5])
    throughput.measure([Engine([1, 0], [0, 1])], 1)
    throughput.measure([Engine([1, 0], [3, 4])], 1)
    assert throughput.found["engines"]["l2v"]["least_cosine"] == pytest.approx(0.8)


def test_the_table_says_which_engines_compute_the_same() -> None:
    cosines = {"yes": (0.99, 0.9), "if all tokens are pooled": (0.9, 0.99), "no": (-0.1, 0.5)}
    for said, (least, least_of_all) in cosines.items():
        assert report.same_vectors({"least_cosine": least, "least_cosine_of_all": least_of_all}) == said


def test_llama_cpp_gets_what_our_tokenizer_makes_of_a_text() -> None:
    """Normalized and cut, so that a tokenizer that does neither gives the same tokens."""
    file = ROOT / "models/demo/base/tokenizer.json"
    ours, plain = (Tokenizer.from_file(str(file)) for _ in range(2))
    plain.normalizer, plain.pre_tokenizer = normalizers.Sequence([]), pre_tokenizers.ByteLevel(add_prefix_space=False)
    for task in (workload("long", 2), workload("queries", 3)):
        prepared = for_llama_cpp(task, file)
        expected = [ours.encode(text).ids[:512] for text in task.joined().texts]
        assert [plain.encode(text).ids for text in prepared.texts] == expected


def test_the_99th_percentile_needs_enough_requests() -> None:
    row = {"p50": 0.01, "p99": 0.02, "max": 0.03, "requests_per_second": 5.0}
    rows = {1: row | {"requests": 40}, 4: row | {"requests": 160}}
    few, enough = report._latencies({"l2v over HTTP": rows}, "135m").splitlines()[-2:]
    assert few == "| l2v over HTTP | 1 | 40 | 10.0 |  | 30.0 |  | 5.0 |"
    assert enough == "| l2v over HTTP | 4 | 160 | 10.0 | 20.0 | 30.0 |  | 5.0 |"


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_changed_results_do_not_make_the_commit_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, found = Path("bench/floor.py"), Path("bench/results/cpu.json")
    found.parent.mkdir(parents=True)
    for file in (code, found):
        file.write_text("1")
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init"], ["add", "."], [*who, "commit", "--message", "all"]):
        subprocess.run(["git", *command], check=True, capture_output=True)
    found.write_text("2")
    assert re.fullmatch("[0-9a-f]+", commit())
    code.write_text("2")
    assert re.fullmatch("[0-9a-f]+-dirty", commit())


def test_an_engine_that_fails_in_a_round_is_dropped() -> None:
    class Dying:
        name, ready_seconds = "dying", 0.0

        def run(self, workload: Workload) -> Round:
            raise RuntimeError("dying exited with status 1")

    class Living(Dying):
        name = "living"

        def run(self, workload: Workload) -> Round:
            return Round(1.0, 0, np.ones((1, 2), np.float32))

    throughput = measure.Throughput(workload("mixed", 1), [5])
    living = Living()
    assert throughput.measure([living, Dying()], 2) == [living]
    assert list(throughput.found["engines"]) == ["living"]
    with pytest.raises(RuntimeError, match="dying"):
        measure.Throughput(workload("mixed", 1), [5]).measure([Dying()], 1)


def test_the_benchmark_imports_none_of_the_services_libraries() -> None:
    """A machine with a GPU may have only torch and transformers."""
    names = ("fastapi", "orjson", "pydantic", "pydantic_settings", "starlette", "structlog", "uvicorn")
    script = f"import sys; sys.modules.update(dict.fromkeys({names})); import bench.__main__, bench.worker"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_engine_that_fails_to_load_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="l2v exited with status 1"):
        LibraryEngine("l2v", "l2v", Path(sys.executable), tmp_path, "bfloat16", "cpu").__enter__()


def test_the_matmul_rate_is_flops_over_time() -> None:
    started = time.perf_counter()
    with FlopCounterMode(display=False) as counter:
        rate = matmul_rate(TINY, 64, torch.float32, torch.device("cpu"))
    whole = time.perf_counter() - started
    assert 0.9 * 2 < counter.get_total_flops() / rate <= whole * 1.01
