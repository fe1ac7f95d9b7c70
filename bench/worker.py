"""One library in its own process: loads a checkpoint, then handles one request per line of standard input.

It runs in the venv of the library, and therefore imports our code only for our own engine and for matrix products.

    python bench/worker.py ENGINE FOLDER DTYPE DEVICE
    {"texts": […], "instruction": "…"}  →  {"seconds": …, "memory": …, "texts": n, "vectors": base64 of float32}
    {"pool_all": […]}  →  {"texts": n, "vectors": …}, of our own engine, with all tokens pooled
    {"matmul": tokens}  →  {"rate": …}
"""

import json
import os
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

Embed = Callable[[list[str], str], Any]


def l2v(folder: str, dtype: str, device: str) -> Embed:
    from l2v.models import load

    return _Ours(load(folder, dtype=dtype, device=device))


def l2v_compiled(folder: str, dtype: str, device: str) -> Embed:
    from l2v.models import load
    from l2v.models.compilation import compile_layers

    encoder = load(folder, dtype=dtype, device=device, prepack=False)
    compile_layers(encoder)
    return _Ours(encoder)


class _Ours:
    """Our own engine."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def __call__(self, texts: list[str], instruction: str) -> Any:
        from l2v.models import Input

        return self._encoder.encode([Input(text, instruction) for text in texts])

    def pool_all(self, texts: list[str]) -> Any:
        """The vectors of texts with all tokens pooled, as libraries do that know no other way."""
        import numpy as np

        from l2v.models import Input
        from l2v.models.batch import batches, token_budget

        whole = [replace(one, pooled=len(one)) for one in self._encoder.tokenize([Input(text) for text in texts])]
        budget = token_budget(self._encoder.device)
        return np.stack([row for batch in batches(whole, budget) for row in self._encoder.forward(batch)])


def llm2vec(folder: str, dtype: str, device: str) -> Embed:
    import torch
    import torch.distributed.tensor  # peft uses it without importing it
    from llm2vec import LLM2Vec

    model = LLM2Vec.from_pretrained(folder, torch_dtype=getattr(torch, dtype), attn_implementation="sdpa")
    model.doc_max_length = 512

    def embed(texts: list[str], instruction: str) -> Any:
        pairs = [[instruction, text] for text in texts]
        return model.encode(pairs, batch_size=32, show_progress_bar=False, device=device).float().numpy()

    return embed


def sentence_transformers(folder: str, dtype: str, device: str) -> Embed:
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device=device, model_kwargs={"dtype": getattr(torch, dtype)})
    return lambda texts, instruction: model.encode(texts, prompt=f"{instruction} " if instruction else None)


def vllm(folder: str, dtype: str, device: str) -> Embed:
    import numpy as np

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # its memory is then that of this process
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB, rather than most of the memory
    os.environ["OMP_NUM_THREADS"] = str(os.cpu_count())  # it would take a single thread
    from vllm import LLM

    # That attention is bidirectional and pooling the mean is in the folder's files.
    model = LLM(folder, runner="pooling", dtype=dtype, max_model_len=512)

    def embed(texts: list[str], instruction: str) -> Any:
        joined = [f"{instruction} {text}".strip() for text in texts]
        outputs = model.embed(joined, use_tqdm=False, tokenization_kwargs={"truncate_prompt_tokens": 512})
        return np.array([output.outputs.embedding for output in outputs])

    return embed


def llama_cpp(file: str, dtype: str, device: str) -> Embed:
    import numpy as np
    from llama_cpp import Llama

    # Attention is over all pairs of tokens in a batch, so that larger ones are slower. The file names the pooling.
    model = Llama(
        file, embedding=True, n_ctx=512, n_batch=512, n_ubatch=512, n_threads_batch=os.cpu_count(), verbose=False
    )
    return lambda texts, instruction: np.array(model.embed(texts), np.float32)


def _rate(folder: str, dtype: str, device: str, tokens: int) -> float:
    """FLOP/s of matrix products (see `bench.floor`), in the same process as the forward passes."""
    import torch
    from transformers import AutoConfig

    from bench.floor import matmul_rate
    from l2v.models.batch import token_budget

    config = AutoConfig.from_pretrained(folder)
    target = torch.device(device)
    return matmul_rate(config, min(tokens, token_budget(target)), getattr(torch, dtype), target)


def _encoded(vectors: Any) -> dict[str, Any]:
    return {"texts": len(vectors), "vectors": b64encode(vectors.astype("<f4").tobytes()).decode()}


def peak_resident_bytes(process: str = "self") -> int:
    """Peak resident memory of a process since the last call. Each call resets the peak."""
    folder = Path("/proc") / process
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    with suppress(OSError):  # some containers lack this file; the peak is then that since the process started
        (folder / "clear_refs").write_text("5")
    return int(status["VmHWM"].split()[0]) * 1024


def peak_memory(device: str) -> int:
    """Peak memory of this process since the last call: GPU memory of tensors, or resident memory on a CPU."""
    if device != "cuda":
        return peak_resident_bytes()
    import torch

    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak


ENGINES = {engine.__name__: engine for engine in (l2v, l2v_compiled, llm2vec, sentence_transformers, vllm, llama_cpp)}


def main(engine: str, folder: str, dtype: str, device: str) -> None:
    out = sys.stdout
    # Keeps the output of libraries out of the responses.
    sys.stdout = sys.stderr

    def respond(**values: Any) -> None:
        print(json.dumps(values), file=out, flush=True)

    embed: Any = ENGINES[engine](folder, dtype, device)
    embed(["a text to warm up with"], "")
    respond(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "matmul" in request:
            respond(rate=_rate(folder, dtype, device, request["matmul"]))
            continue
        if "pool_all" in request:
            respond(**_encoded(embed.pool_all(request["pool_all"])))
            continue
        peak_memory(device)  # resets the peak
        started = time.perf_counter()
        vectors = embed(request["texts"], request["instruction"])
        seconds = time.perf_counter() - started
        respond(seconds=seconds, memory=peak_memory(device), **_encoded(vectors))


if __name__ == "__main__":
    main(*sys.argv[1:])
