"""Exports, opened by vLLM: `make test-vllm`. Needs vLLM in an environment of its own, so `make test` leaves it out.

vLLM on a CPU has no kernels for the small heads of the parity stacks. So they get larger heads and random weights.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

STACKS = Path(__file__).parent / "families/stacks"
# Types of models, attention, poolings, Dense layers and a default of fewer dimensions.
NAMES = (
    *("llama-nemotron-embed", "nemotron-3-embed", "qwen3-embedding", "voyage-4-nano", "embeddinggemma", "e5-mistral"),
    *("st6-cls", "dense-tanh", "truncate-dim"),
)
TEXTS = ["hello world", "another, longer text: 42", "Ünïcödé, 日本語"]
_HEAD_DIM, _TOLERANCE = 32, 1e-5


def write(name: str, folder: Path) -> np.ndarray:
    """Exports a stack to the folder. Returns the vectors of the texts, [n, dimensions]."""
    import torch
    from transformers import AutoConfig, AutoModel

    from l2v.models import Input, load
    from l2v.models.export import export

    stack = folder / "stack"
    shutil.copytree(STACKS / name, stack)
    declared = json.loads((stack / "config.json").read_text())
    types = {"llama_bidirec": ("llama", "LlamaModel")}  # a type of remote code only; l2v reads it as this one
    if replaced := types.get(declared["model_type"]):
        declared |= {"model_type": replaced[0], "architectures": [replaced[1]], "is_causal": False}
    declared["head_dim"] = _HEAD_DIM
    (stack / "config.json").write_text(json.dumps(declared))
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.from_pretrained(stack))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.1)
    model.float().save_pretrained(stack)
    saved = json.loads((stack / "config.json").read_text())
    (stack / "config.json").write_text(json.dumps(declared | saved))
    encoder = load(str(stack), dtype="float32", prepack=False)
    export(encoder, folder / "export")
    assert "**vLLM** opens it with the same vectors" in (folder / "export/README.md").read_text()
    vectors = encoder.encode([Input(text) for text in TEXTS])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def read(folder: str, dimensions: int) -> None:
    """Prints vLLM's vectors of the texts. Runs in vLLM's environment."""
    from vllm import LLM, PoolingParams

    out = sys.stdout
    sys.stdout = sys.stderr
    model = LLM(folder, runner="pooling", dtype="float32", enforce_eager=True)
    fewer = {"pooling_params": PoolingParams(dimensions=dimensions)} if dimensions else {}
    embedded = model.embed(TEXTS, use_tqdm=False, **fewer)
    vectors = np.array([output.outputs.embedding for output in embedded])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # the export says where vLLM doesn't
    print(json.dumps(vectors.tolist()), file=out)


def main(python: str) -> None:
    """Compares the vectors of all exports.

    Args:
        python: vLLM's interpreter.
    """
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            expected = write(name, Path(folder))
            dimensions = expected.shape[1] if name == "truncate-dim" else 0
            command = [python, __file__, "--read", f"{folder}/export", str(dimensions)]
            done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
            if done.returncode:
                sys.exit(f"{name}: vLLM failed\n{done.stderr[-2000:]}")
            difference = float(np.abs(np.array(json.loads(done.stdout.splitlines()[-1])) - expected).max())
            print(f"{name}: differs by {difference:.1e}")
            if not difference <= _TOLERANCE:
                sys.exit(f"{name}: other vectors than l2v's")


if __name__ == "__main__":
    if sys.argv[1] == "--read":
        read(sys.argv[2], int(sys.argv[3]))
    else:
        main(sys.argv[1])
