"""McGill-NLP's newer repositories: MNTP and SimCSE adapters for Qwen3 and Qwen2.5, without the weights of the base.

The released llm2vec does not support Qwen3, so transformers' plain class computes these goldens, with a bidirectional
mask and both adapters merged. As in LLM2Vec, the vector is the mean over the text's tokens.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tiny_tokenizers  # first: it puts the folder of `checkpoints` on the path
import torch
from checkpoint import make_model, write_tokenizer, write_weights
from checkpoints import CONTRASTIVE, MNTP, Stack, adapter_config, adapter_tensors, write_mntp_config
from golden import RAN_BY, as_list
from layout import Json, write_json
from published import QWEN3
from safetensors.torch import load_file, save_file
from texts import INSTRUCTION, TEXTS, WITH_INSTRUCTION
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen2ForCausalLM,
    Qwen2Model,
    Qwen3ForCausalLM,
    Qwen3Model,
)

MAX_LENGTH, DOC_MAX_LENGTH = 512, 400


@dataclass(frozen=True)
class Adapted:
    """A base and its two adapters."""

    name: str
    base_id: str
    seed: int
    causal: type
    plain: type
    config: Json

    @property
    def stack(self) -> Stack:
        return Stack(self.name, self.base_id, self.seed, self.plain.config_class, self.config, tokenizer)


def tokenizer() -> tiny_tokenizers.TokenizerFiles:
    return tiny_tokenizers.qwen3(ends_row=False)


QWEN2 = {key: value for key, value in QWEN3.items() if key not in ("head_dim", "attention_bias")} | {
    "model_type": "qwen2"
}

ADAPTED = (
    Adapted("llm2vec-qwen3", "Qwen/Qwen3-0.6B", 501, Qwen3ForCausalLM, Qwen3Model, QWEN3),
    Adapted("llm2vec-qwen2.5", "Qwen/Qwen2.5-0.5B-Instruct", 502, Qwen2ForCausalLM, Qwen2Model, QWEN2),
)


def save_adapted(root: Path, adapted: Adapted) -> None:
    """Write `base`, `mntp` and `simcse` below `root`."""
    generator = torch.Generator().manual_seed(adapted.seed)
    files = tokenizer()
    base, mntp, simcse = (root / part for part in ("base", "mntp", "simcse"))
    config = adapted.config | {"architectures": [adapted.causal.__name__], "max_position_embeddings": 32768}
    config |= {"eos_token_id": files.eos_id, "vocab_size": files.vocab_size, "torch_dtype": "bfloat16"}
    write_json(base / "config.json", dict(sorted(config.items())))
    model = make_model(adapted.causal, config, generator)
    weights = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}  # tied
    write_weights(base / "model.safetensors", weights, "bfloat16")
    write_tokenizer(base, files)
    for folder, adapter in ((mntp, MNTP), (simcse, CONTRASTIVE)):
        write_json(folder / "adapter_config.json", adapter_config(adapted.stack, adapter, model))
        tensors = {name: value.bfloat16() for name, value in adapter_tensors(model, adapter, generator).items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_tokenizer(mntp, files)
    write_mntp_config(mntp, adapted.stack, base)
    for path in root.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors makes them readable for the owner only


def load_merged(root: Path, adapted: Adapted) -> torch.nn.Module:
    """The bidirectional decoder with both adapters added to its weights, in float32."""
    config = json.loads((root / "base" / "config.json").read_text()) | {"is_causal": False}
    model = adapted.plain(adapted.plain.config_class.from_dict(config)).float().eval()
    base = load_file(root / "base" / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): weight.float() for name, weight in base.items()})
    layers = dict(model.named_modules())
    for part, adapter in (("mntp", MNTP), ("simcse", CONTRASTIVE)):
        tensors = load_file(root / part / "adapter_model.safetensors")
        for key in tensors:
            if key.endswith(".lora_A.weight"):
                name = key.removesuffix(".lora_A.weight")
                a, b = tensors[key].float(), tensors[f"{name}.lora_B.weight"].float()
                layers[name.removeprefix("base_model.model.")].weight.data += adapter.scale * b @ a
    return model


def count(tokens: PreTrainedTokenizerBase, text: str) -> int:
    return len(tokens(text, add_special_tokens=False, truncation=True, max_length=MAX_LENGTH)["input_ids"])


def trim(tokens: PreTrainedTokenizerBase, text: str) -> str:
    """Drop words at the end of a text until it has no more tokens than LLM2Vec allows."""
    while (length := count(tokens, text)) > DOC_MAX_LENGTH:
        words = text.split()
        text = " ".join(words[: int(len(words) * DOC_MAX_LENGTH / length)])
    return text


@torch.no_grad()
def make_rows(model: torch.nn.Module, tokens: PreTrainedTokenizerBase) -> Iterator[Json]:
    for instruction, names in ((None, TEXTS), (INSTRUCTION, WITH_INSTRUCTION)):
        for name in names:
            text = trim(tokens, TEXTS[name])
            ids = tokens(f"{instruction.strip()} {text}" if instruction else text)["input_ids"]
            states = model(input_ids=torch.tensor([ids]))[0][0]
            vector = states[-count(tokens, text) :].mean(dim=0)
            request = {"prompt": instruction} if instruction else {}
            row = {"name": name, "text": TEXTS[name], "request": request, "prompt_name": None, "prompt": instruction}
            yield row | {"ids": ids, "pooled": count(tokens, text), "vector": as_list(vector)}


def make_adapted_golden(root: Path, adapted: Adapted) -> Json:
    model = load_merged(root, adapted)
    rows = list(make_rows(model, AutoTokenizer.from_pretrained(root / "mntp")))
    source = f"The plain class {adapted.plain.__name__}, bidirectional, with both adapters merged ({RAN_BY})"
    return {
        "repositories": [f"McGill-NLP/LLM2Vec-{name}" for name in REPOSITORIES[adapted.name]],
        "source": source,
        "semantics": "llm2vec",
        "attention": "bidirectional",
        "pooling": "mean",
        "dimensions": len(rows[0]["vector"]),
        "normalised": False,
        "declared": {"base": adapted.base_id, "max_length": MAX_LENGTH, "doc_max_length": DOC_MAX_LENGTH},
        "rows": rows,
    }


REPOSITORIES = {
    "llm2vec-qwen3": [
        f"Qwen3-{size}-mntp{stage}" for size in ("06B", "17B", "4B", "8B") for stage in ("", "-unsup-simcse")
    ],
    "llm2vec-qwen2.5": [
        f"Qwen25-{size}-Instruct-mntp{stage}" for size in ("05B", "15B", "3B", "7B") for stage in ("", "-unsup-simcse")
    ],
}
