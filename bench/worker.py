"""One engine in a process of its own: loads a checkpoint, then embeds what each line of standard input asks for.

Runs in the venv of the engine, whatever versions that holds; so it imports nothing of ours but for our own engine.

    python bench/worker.py ENGINE FOLDER DTYPE DEVICE
    {"texts": […], "instruction": "…"}  →  {"seconds": …, "memory": …, "vectors": base64 of float32}
    {"matmul": tokens}  →  {"rate": …}
"""

import json
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

Embed = Callable[[list[str], str], Any]


def l2v(folder: str, dtype: str, device: str) -> Embed:
    from l2v.models import load

    return _embed(load(folder, dtype=dtype, device=device))


def l2v_compiled(folder: str, dtype: str, device: str) -> Embed:
    from l2v.models import load
    from l2v.models.compilation import compile_layers

    encoder = load(folder, dtype=dtype, device=device, packed=False)
    compile_layers(encoder)
    return _embed(encoder)


def _embed(encoder: Any) -> Embed:
    from l2v.models import Input

    return lambda texts, instruction: encoder.encode([Input(text, instruction) for text in texts])


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


def _rate(folder: str, dtype: str, device: str, tokens: int) -> float:
    """What the machine's matrix products reach, see `bench.floor`; in the process whose forward passes are measured."""
    import torch
    from transformers import AutoConfig

    from bench.floor import matmul_rate
    from l2v.models.batch import token_budget

    config = AutoConfig.from_pretrained(folder)
    place = torch.device(device)
    return matmul_rate(config, min(tokens, token_budget(place)), getattr(torch, dtype), place)


def peak(process: str = "self") -> int:
    """The most bytes that a process had resident since this was last asked of it."""
    folder = Path("/proc") / process
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    with suppress(OSError):  # some containers have no such file: then it is the most since the process began
        (folder / "clear_refs").write_text("5")
    return int(status["VmHWM"].split()[0]) * 1024


def _memory(device: str) -> int:
    """The most bytes that were taken since it was last asked: of the GPU by tensors, or of the machine."""
    if device != "cuda":
        return peak()
    import torch

    most = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return most


ENGINES = {engine.__name__: engine for engine in (l2v, l2v_compiled, llm2vec, sentence_transformers)}


def main(engine: str, folder: str, dtype: str, device: str) -> None:
    out = sys.stdout
    # What a library prints is not an answer.
    sys.stdout = sys.stderr

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=out, flush=True)

    embed = ENGINES[engine](folder, dtype, device)
    embed(["a text to warm up with"], "")
    answer(ready=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "matmul" in asked:
            answer(rate=_rate(folder, dtype, device, asked["matmul"]))
            continue
        _memory(device)  # from here on
        started = time.perf_counter()
        vectors = embed(asked["texts"], asked["instruction"])
        seconds = time.perf_counter() - started
        answer(seconds=seconds, memory=_memory(device), vectors=b64encode(vectors.astype("<f4").tobytes()).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
