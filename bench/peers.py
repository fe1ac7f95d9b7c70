"""The engines of other libraries, each in a venv of its own, or in this interpreter if it has the library."""

import subprocess
import sys
from collections.abc import Collection, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench.engines import LibraryEngine, ServerEngine
from bench.workloads import for_llama_cpp

VENVS = Path(".venv-bench")
# Venv of a library → its function in `bench.worker`.
_LIBRARIES = {"llm2vec": "llm2vec", "sentence-transformers": "sentence_transformers"}
# These are built for CPUs.
_ON_CPU = ("vllm", "llama-cpp")
NAMES = (*_LIBRARIES, "infinity", *_ON_CPU)
# llama.cpp's batches; see `bench.worker`.
_TOKENS = "512"
_WRITER = Path(__file__).parent / "gguf_writer.py"


def peers(names: Collection[str], folder: Path, dtype: str, device: str) -> Iterator[LibraryEngine | ServerEngine]:
    """The engines that are among `names` and installed."""
    for name, engine in _LIBRARIES.items():
        python = VENVS / name / "bin/python"
        if name in names and (python.is_file() or find_spec(engine)):
            interpreter = python if python.is_file() else Path(sys.executable)
            yield LibraryEngine(name, engine, interpreter, folder, dtype, device)
    installed = [name for name in names if (VENVS / name / "bin/python").is_file()]
    if "infinity" in installed:
        yield _infinity(folder, dtype, device)
    if "vllm" in installed and device == "cpu":
        yield from _vllm(folder, dtype)
    # Its products of CPUs know no float16.
    if "llama-cpp" in installed and device == "cpu" and dtype == "bfloat16":
        yield from _llama_cpp(folder)


def _infinity(folder: Path, dtype: str, device: str) -> ServerEngine:
    command = [
        VENVS / "infinity/bin/infinity_emb", "v2", "--model-id", folder, "--served-model-name", "any",
        "--engine", "torch", "--device", device, "--dtype", dtype, "--no-bettertransformer",
    ]  # fmt: skip
    return ServerEngine("Infinity over HTTP", command, "/embeddings", device)


def _vllm(folder: Path, dtype: str) -> Iterator[LibraryEngine | ServerEngine]:
    yield LibraryEngine("vLLM", "vllm", VENVS / "vllm/bin/python", folder, dtype, "cpu")
    # `vllm serve` needs a package of the name vllm. Without the variables, it leaves a core idle, and takes most of the
    # memory for its cache.
    command = [
        "env", "VLLM_CPU_NUM_OF_RESERVED_CPU=0", "VLLM_CPU_KVCACHE_SPACE=1", VENVS / "vllm/bin/python",
        "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--served-model-name", "any",
        "--runner", "pooling", "--dtype", dtype, "--max-model-len", "512", "--host", "127.0.0.1",
    ]  # fmt: skip
    yield ServerEngine("vLLM over HTTP", command, "/v1/embeddings", "cpu", truncate_prompt_tokens=512)


def _llama_cpp(folder: Path) -> Iterator[LibraryEngine | ServerEngine]:
    python, prepare = VENVS / "llama-cpp/bin/python", partial(for_llama_cpp, tokenizer=folder / "tokenizer.json")
    for dtype, label in (("bfloat16", "llama.cpp"), ("q8_0", "llama.cpp Q8_0")):
        file = folder.with_name(f"{folder.name}-{dtype}.gguf")
        if not file.is_file():
            subprocess.run([python, _WRITER, folder, file, dtype], check=True)
        yield LibraryEngine(label, "llama_cpp", python, file, dtype, "cpu", prepare=prepare)
        if dtype == "bfloat16":
            command = [
                python, "-m", "llama_cpp.server", "--model", file, "--embedding", "true", "--n_ctx", _TOKENS,
                "--n_batch", _TOKENS, "--n_ubatch", _TOKENS,
            ]  # fmt: skip
            yield ServerEngine(f"{label} over HTTP", command, "/v1/embeddings", "cpu", prepare=prepare)
