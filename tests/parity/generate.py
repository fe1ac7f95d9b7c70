"""Generates the parity fixtures: tiny LLM2Vec stacks, and the vectors that the real reference computes with them.

    make goldens

It takes half a minute on a CPU, needs no network, and rewrites `stacks/` and `goldens/` next to this file from
`cases.json` and fixed seeds. `--goldens-only` keeps the existing stacks.

`goldens/<stack>.safetensors` holds float32 [cases, hidden] tensors, in the order of `cases.json`: `<pooling>` with the
reference's defaults, `<pooling>.all` with skip_instruction=False. `goldens/<stack>.json` holds, for `mean` and for
`eos_token` (which adds a suffix), the token `ids` of each row and the number of last positions that are `pooled`.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

from hub import make_hub_cache

HERE = Path(__file__).parent
CACHE = Path(tempfile.mkdtemp(prefix="l2v-parity-"))
# transformers reads these when it is imported.
os.environ["HF_HUB_CACHE"] = str(CACHE)
os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
import torch.distributed.tensor  # noqa: E402  (peft uses it without importing it)
from checkpoints import CONTRASTIVE, MNTP, PROJECTIONS, STACKS, Adapter, Stack, write_stack  # noqa: E402
from llm2vec import LLM2Vec  # noqa: E402
from llm2vec.models import LlamaBiModel, Qwen2BiModel  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

Case = dict[str, str]

POOLINGS = ("mean", "weighted_mean", "eos_token", "last_token", "bos_token")
WITH_INSTRUCTION = ("mean", "weighted_mean")  # the poolings that skip_instruction=False changes

# What each template adds at the start of a decoded row.
TEMPLATE_MARKS = {
    "llama3-instruct": "<|start_header_id|>user<|end_header_id|>",
    "mistral-instruct": "[INST]",
    "qwen2-instruct": "<|im_start|>user",
}
# What eos_token pooling appends. Llama 3's instruct template gets nothing.
SUFFIXES = {"mistral-instruct": "</s>", "sheared-llama": "</s>", "gemma": "<eos>", "qwen2-instruct": "<|endoftext|>"}


def make_qwen2_bidirectional() -> None:
    """Give Qwen2BiModel the mask of LlamaBiModel, without which the reference's Qwen2 runs causally.

    llm2vec 0.2.3 overrides `_update_causal_mask` for Llama, Mistral and Gemma only. Its Qwen2 clears `is_causal`, which
    only flash attention reads: SDPA and eager attention both get transformers' causal mask. The two methods have the
    same signature, and Llama's mask only hides padding, so this is how the reference intends Qwen2 to run.
    """
    Qwen2BiModel._update_causal_mask = LlamaBiModel._update_causal_mask


def load_reference(stack: Stack, *, contrastive: bool = True) -> LLM2Vec:
    """Load a stack as the reference loads published ones; it finds the base in the Hub cache by its id."""
    root = HERE / "stacks" / stack.name
    peft = str(root / "contrastive") if contrastive else None
    l2v = LLM2Vec.from_pretrained(
        str(root / "mntp"), peft_model_name_or_path=peft, torch_dtype=torch.float32, attn_implementation="sdpa"
    )
    l2v.eval()
    # This name determines the template and the suffix.
    assert l2v.model.config._name_or_path == stack.base_id, l2v.model.config._name_or_path
    assert (l2v.max_length, l2v.doc_max_length, l2v.skip_instruction) == (512, 400, True)
    return l2v


def load_bare(stack: Stack) -> LLM2Vec:
    """Load the bidirectional base without adapters, with the same template."""
    l2v = LLM2Vec.from_pretrained(stack.base_id, torch_dtype=torch.float32, attn_implementation="sdpa")
    l2v.model.config._name_or_path = stack.base_id
    return l2v.eval()


def encode(l2v: LLM2Vec, cases: list[Case], batch_size: int = 1) -> torch.Tensor:
    pairs = [[case["instruction"], case["text"]] for case in cases]
    return l2v.encode(pairs, batch_size=batch_size, show_progress_bar=False, device="cpu").contiguous()


def row(l2v: LLM2Vec, case: Case) -> tuple[list[int], int]:
    """The token ids of a case, and the number of last positions that are pooled."""
    text = l2v.prepare_for_tokenization(l2v._convert_to_str(case["instruction"], case["text"]))
    features = l2v.tokenize([text])
    ids, mask = features["input_ids"][0].tolist(), features["embed_mask"][0]
    pooled = int(mask.sum())
    assert features["attention_mask"].all()
    assert mask[-pooled:].all()
    # The reference pools the wrong positions if it truncates a row or a text, so such a case cannot be a golden.
    whole = l2v.tokenizer(text.replace("!@#$%^&*()", ""))["input_ids"]
    assert 0 < pooled <= len(ids) == len(whole) <= l2v.max_length, (case["name"], pooled, len(ids), len(whole))
    return ids, pooled


def lora_delta(folder: Path, layer: str, adapter: Adapter) -> torch.Tensor:
    tensors = load_file(folder / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.{layer}.lora_{half}.weight"] for half in "AB")
    return adapter.scale * b @ a


def check_adapters_are_applied_once(l2v: LLM2Vec, stack: Stack) -> None:
    """Check that every projection is base + MNTP delta (merged), with the contrastive delta on top.

    The reference loads the MNTP adapter twice: transformers does when it loads the folder, and LLM2Vec wraps the model
    in peft again. The second load replaces the first, under the same adapter name.
    """
    root = HERE / "stacks" / stack.name
    base = load_file(root / "base" / "model.safetensors")
    modules = dict(l2v.model.base_model.model.named_modules())
    layers = [name for name in modules if name.rpartition(".")[2] in PROJECTIONS]
    assert len(layers) == len(PROJECTIONS) * l2v.config.num_hidden_layers
    for layer in layers:
        merged = base[f"model.{layer}.weight"] + lora_delta(root / "mntp", layer, MNTP)
        torch.testing.assert_close(modules[layer].base_layer.weight.data, merged)
        delta = modules[layer].get_delta_weight("default").detach()
        torch.testing.assert_close(delta, lora_delta(root / "contrastive", layer, CONTRASTIVE))


@torch.no_grad()
def check_bidirectional(l2v: LLM2Vec, ids: list[int]) -> None:
    """Check that changing the last token moves the hidden state of the first position."""
    rows = torch.tensor([ids, [*ids[:-1], ids[-1] - 1]])
    first = [l2v.model(input_ids=row[None], attention_mask=torch.ones_like(row)[None])[0][0, 0] for row in rows]
    moved = (first[0] - first[1]).abs().max().item()
    assert moved > 1e-3, f"runs causally: {moved}"


def check_adapters_show(stack: Stack, cases: list[Case], vectors: torch.Tensor) -> None:
    """Check that each adapter changes every vector, so that the goldens detect a missing one."""
    mntp_only = encode(load_reference(stack, contrastive=False), cases)
    bare = encode(load_bare(stack), cases)
    for name, one, other in (("contrastive", vectors, mntp_only), ("mntp", mntp_only, bare)):
        least = (one - other).abs().amax(dim=1).min().item()
        assert least > 1e-2, f"{name} hardly changes the vectors: {least}"
        print(f"  {name} adapter moves every vector by at least {least:.3f}")


def check_trimming(l2v: LLM2Vec, cases: list[Case]) -> None:
    """Check that some texts are trimmed, one of them in several rounds."""
    counts = [len(l2v.tokenizer(case["text"], add_special_tokens=False)["input_ids"]) for case in cases]
    long = [case["name"].startswith(("long", "thousands")) for case in cases]
    assert [count > l2v.doc_max_length for count in counts] == long, dict(zip(long, counts, strict=True))
    assert max(counts) > 10 * l2v.max_length


def golden_vectors(l2v: LLM2Vec, cases: list[Case]) -> dict[str, torch.Tensor]:
    """Compute vectors by pooling mode, in batches of one, so that no row is padded.

    Also checks that padding changes the reference's vectors by rounding only: left padding is masked, and shifts the
    rotary positions of a row.
    """
    vectors = {}
    for pooling in POOLINGS:
        # The reference finds BOS by its id, and returns no vectors without one.
        if pooling == "bos_token" and l2v.tokenizer.bos_token_id is None:
            continue
        for skip in (True, False) if pooling in WITH_INSTRUCTION else (True,):
            l2v.pooling_mode, l2v.skip_instruction = pooling, skip
            key = pooling if skip else f"{pooling}.all"
            vectors[key] = encode(l2v, cases)
            assert vectors[key].shape[0] == len(cases)
            assert vectors[key].isfinite().all()
            gap = (vectors[key] - encode(l2v, cases, batch_size=8)).abs().max().item()
            assert gap < 1e-4, f"{key}: padding changes vectors by {gap}"
    l2v.pooling_mode, l2v.skip_instruction = "mean", True
    return vectors


def golden_rows(l2v: LLM2Vec, cases: list[Case]) -> dict[str, dict[str, list]]:
    rows = {}
    for pooling in ("mean", "eos_token"):
        l2v.pooling_mode = pooling
        ids, pooled = zip(*(row(l2v, case) for case in cases), strict=True)
        rows[pooling] = {"ids": list(ids), "pooled": list(pooled)}
    l2v.pooling_mode = "mean"
    return rows


def check_template(l2v: LLM2Vec, stack: Stack, rows: dict[str, dict[str, list]]) -> None:
    mark = TEMPLATE_MARKS.get(stack.name)
    starts = [l2v.tokenizer.decode(ids[:24]) for ids in rows["mean"]["ids"]]
    assert all((mark in start) if mark else True for start in starts), starts
    suffix = SUFFIXES.get(stack.name)
    for ids, plain in zip(rows["eos_token"]["ids"], rows["mean"]["ids"], strict=True):
        assert ids[-1] == l2v.tokenizer.convert_tokens_to_ids(suffix) if suffix else ids == plain


def write_goldens(stack: Stack, cases: list[Case]) -> None:
    l2v = load_reference(stack)
    check_adapters_are_applied_once(l2v, stack)
    check_trimming(l2v, cases)
    rows = golden_rows(l2v, cases)
    check_template(l2v, stack, rows)
    check_bidirectional(l2v, rows["mean"]["ids"][0])
    vectors = golden_vectors(l2v, cases)
    check_adapters_show(stack, cases, vectors["mean"])
    goldens = HERE / "goldens"
    goldens.mkdir(exist_ok=True)
    vectors_file = goldens / f"{stack.name}.safetensors"
    save_file(vectors, vectors_file)
    vectors_file.chmod(0o644)  # safetensors makes it readable for the owner only
    (goldens / f"{stack.name}.json").write_text(json.dumps(rows, separators=(",", ":")) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goldens-only", action="store_true", help="keep the existing stacks")
    only_goldens = parser.parse_args().goldens_only
    # Models this small gain nothing from threads, and a single one always sums in the same order.
    torch.set_num_threads(1)
    make_qwen2_bidirectional()
    cases = json.loads((HERE / "cases.json").read_text())
    try:
        for stack in STACKS:
            print(stack.name)
            root = HERE / "stacks" / stack.name
            if not only_goldens:
                shutil.rmtree(root, ignore_errors=True)
                write_stack(root, stack)
            make_hub_cache(CACHE, {stack.base_id: root / "base"})
            write_goldens(stack, cases)
    finally:
        shutil.rmtree(CACHE)


if __name__ == "__main__":
    main()
