"""Adapters as peft writes them: each equals peft's own merge and forward pass, or is refused with the cause."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from peft import (
    AdaLoraConfig,
    BOFTConfig,
    HRAConfig,
    IA3Config,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from l2v.models import ModelError
from l2v.models.adapters import merge
from l2v.models.decoder import read_config, read_decoder
from l2v.models.sources import Source
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Restores the environment, which peft changes for BOFT: programs started by later tests would inherit it."""
    with patch.dict(os.environ):
        yield


IDS = torch.tensor([[256, 72, 101, 108, 108, 111, 32, 119, 250, 257]])
LINEAR = ["q_proj", "v_proj", "down_proj"]


def lora(**settings: Any) -> LoraConfig:
    return LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": LINEAR} | settings))


# What to train, and on which model.
CARRIED: dict[str, tuple[Any, type]] = {
    "plain": (lora(), AutoModel),
    "causal": (lora(task_type="CAUSAL_LM"), AutoModelForCausalLM),
    "causal with its head": (lora(target_modules=[*LINEAR, "lm_head"], task_type="CAUSAL_LM"), AutoModelForCausalLM),
    "classifier": (lora(task_type="SEQ_CLS"), AutoModelForSequenceClassification),
    "feature extraction": (lora(task_type="FEATURE_EXTRACTION"), AutoModel),
    "embeddings": (lora(target_modules=[*LINEAR, "embed_tokens"]), AutoModel),
    "embeddings of a causal model": (
        lora(target_modules=[*LINEAR, "embed_tokens"], task_type="CAUSAL_LM"),
        AutoModelForCausalLM,
    ),
    "saved embeddings": (lora(modules_to_save=["embed_tokens"]), AutoModel),
    "saved embeddings and head": (
        lora(modules_to_save=["embed_tokens", "lm_head"], task_type="CAUSAL_LM"),
        AutoModelForCausalLM,
    ),
    "saved norms": (lora(modules_to_save=["input_layernorm", "norm"]), AutoModel),
    "trainable tokens": (lora(trainable_token_indices=[250, 257]), AutoModel),
    "trainable tokens by name": (
        lora(trainable_token_indices={"embed_tokens": [257]}, task_type="CAUSAL_LM"),
        AutoModelForCausalLM,
    ),
    "rslora": (lora(use_rslora=True), AutoModel),
    "dora": (lora(use_dora=True), AutoModel),
    "dora on embeddings": (lora(use_dora=True, target_modules=["q_proj", "embed_tokens"]), AutoModel),
    "ranks and alphas by pattern": (
        lora(rank_pattern={r"layers\.0\.self_attn\.q_proj": 2}, alpha_pattern={r"^model.layers.1.self_attn.v_proj": 3}),
        AutoModelForCausalLM,
    ),
    "some layers": (lora(layers_to_transform=[1], layers_pattern="layers"), AutoModelForCausalLM),
    "by expression": (lora(target_modules=r"model\.layers\.\d+\.self_attn\.[qk]_proj"), AutoModelForCausalLM),
    "all but": (lora(exclude_modules=["layers.0.self_attn.q_proj"]), AutoModelForCausalLM),
    "all linear": (lora(target_modules="all-linear", task_type="CAUSAL_LM"), AutoModelForCausalLM),
    "fan in, fan out": (lora(fan_in_fan_out=True), AutoModel),
    "pissa": (lora(init_lora_weights="pissa"), AutoModel),
    "olora": (lora(init_lora_weights="olora"), AutoModel),
    "parameters": (lora(target_modules=[], target_parameters=["q_proj.weight"]), AutoModelForCausalLM),
    "tied weights ensured": (lora(target_modules=["embed_tokens"], ensure_weight_tying=True), AutoModelForCausalLM),
    "AdaLoRA": (AdaLoraConfig(init_r=4, target_r=2, total_step=10, target_modules=LINEAR), AutoModel),
    "LoHa": (LoHaConfig(r=4, target_modules=LINEAR), AutoModel),
    "LoKr": (LoKrConfig(r=4, target_modules=LINEAR), AutoModelForCausalLM),
    "IA3": (IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]), AutoModel),
    "OFT": (OFTConfig(r=0, oft_block_size=4, target_modules=["q_proj"]), AutoModel),
    "BOFT": (BOFTConfig(boft_block_size=4, target_modules=["q_proj"]), AutoModel),
    "HRA": (HRAConfig(r=4, target_modules=["q_proj"]), AutoModel),
    "LN tuning": (LNTuningConfig(target_modules=["input_layernorm"]), AutoModelForCausalLM),
    "tokens alone": (TrainableTokensConfig(token_indices=[250, 257], target_modules=["embed_tokens"]), AutoModel),
}


def randomize(model: torch.nn.Module) -> None:
    """Simulates training: every weight of the adapter gets another value."""
    torch.manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)


def write(folder: Path, base: Path, config: Any, kind: type, tokens: int | None = None) -> Path:
    model = kind.from_pretrained(base)  # type: ignore[attr-defined]
    if tokens:
        model.resize_token_embeddings(tokens, mean_resizing=False)
    adapted = get_peft_model(model, config)
    randomize(adapted)
    adapted.save_pretrained(folder)
    return folder


def merged(base: Path, adapter: Path, *ignore: str) -> tuple[PreTrainedModel, list[str]]:
    source = Source(str(base), base)
    decoder, _ = read_decoder(source, read_config(source), torch.float32)
    return merge(decoder, Source(str(adapter), adapter), ignore)


def states(decoder: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return decoder(input_ids=IDS, use_cache=False).last_hidden_state


def check(base: Path, adapter: Path, kind: type, tokens: int | None = None) -> list[str]:
    """Compares merged weights and hidden states with peft's. Returns the names that were left out."""
    model = kind.from_pretrained(base)  # type: ignore[attr-defined]
    if tokens:
        model.resize_token_embeddings(tokens, mean_resizing=False)
    adapted = PeftModel.from_pretrained(model, adapter).eval()
    decoder = adapted.get_base_model()
    expected_states = states(decoder if kind is AutoModel else decoder.model)
    expected = adapted.merge_and_unload()
    expected = expected if kind is AutoModel else expected.model

    ours, left_out = merged(base, adapter)
    weights = ours.state_dict()
    assert weights.keys() == expected.state_dict().keys()
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-6)
    expected.load_state_dict(weights)
    torch.testing.assert_close(states(expected.eval()), expected_states, rtol=1e-4, atol=2e-5)
    assert (states(expected) - states(AutoModel.from_pretrained(base).eval())).abs().max() > 1e-3
    return left_out


@pytest.mark.parametrize("name", CARRIED)
def test_an_adapter_equals_peft(name: str, base: Path, tmp_path: Path) -> None:
    config, kind = CARRIED[name]
    left_out = check(base, write(tmp_path / "adapter", base, config, kind), kind)
    assert all(any(head in tensor for head in ("lm_head", "score")) for tensor in left_out)
    assert bool(left_out) == (name in {"causal with its head", "classifier", "saved embeddings and head"})


def test_merging_rounds_bfloat16_as_peft_does(base: Path, tmp_path: Path) -> None:
    """Weights are rounded once per adapter; few differ, since products are summed in another order."""
    folder = write(tmp_path / "adapter", base, lora(), AutoModel)
    source = Source(str(base), base)
    decoder, _ = read_decoder(source, read_config(source), torch.bfloat16)
    ours, _ = merge(decoder, Source(str(folder), folder))
    expected = PeftModel.from_pretrained(AutoModel.from_pretrained(base, dtype=torch.bfloat16), folder)
    theirs = expected.merge_and_unload().state_dict()
    for name, weight in ours.state_dict().items():
        assert (weight != theirs[name]).float().mean() < 0.01
        torch.testing.assert_close(weight, theirs[name], rtol=2**-7, atol=0)


@pytest.mark.parametrize("kind", [AutoModel, AutoModelForCausalLM])
@pytest.mark.parametrize("targets", [LINEAR, ["embed_tokens"]])
@pytest.mark.parametrize("tokens", [300, 258])
def test_a_resized_vocabulary_is_honoured(
    kind: type, targets: list[str], tokens: int, base: Path, tmp_path: Path
) -> None:
    folder = write(tmp_path / "adapter", base, lora(target_modules=targets), kind, tokens)
    left_out = check(base, folder, kind, tokens)
    whole = kind is not AutoModel and targets is LINEAR  # peft saves the head too, unless the embeddings are adapted
    assert left_out == ["base_model.model.lm_head.weight of adapter"] * whole
    decoder, _ = merged(base, folder)
    assert decoder.config.vocab_size == tokens


def test_trainable_tokens_of_a_resized_vocabulary(base: Path, tmp_path: Path) -> None:
    config = lora(trainable_token_indices=[257, 270])
    check(base, write(tmp_path / "adapter", base, config, AutoModelForCausalLM, 280), AutoModelForCausalLM, 280)


def test_scaled_embeddings_of_gemma(tmp_path: Path) -> None:
    base = tiny.make_base(tmp_path / "base", "gemma3_text", query_pre_attn_scalar=8, sliding_window=512)
    config = lora(target_modules=["embed_tokens", "q_proj"], task_type="CAUSAL_LM")
    check(base, write(tmp_path / "adapter", base, config, AutoModelForCausalLM), AutoModelForCausalLM)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
@pytest.mark.parametrize("lora_bias", [False, True])
def test_biases_of_a_base_that_has_them(bias: str, lora_bias: bool, tmp_path: Path) -> None:
    base = tiny.make_base(tmp_path / "base", "qwen2")
    config = lora(target_modules=["q_proj"], bias=bias, lora_bias=lora_bias)
    check(base, write(tmp_path / "adapter", base, config, AutoModelForCausalLM), AutoModelForCausalLM)


def test_an_adapter_that_changes_only_biases_is_merged(tmp_path: Path) -> None:
    base = tiny.make_base(tmp_path / "base", "qwen2")
    folder = write(tmp_path / "adapter", base, lora(target_modules=["q_proj"], lora_bias=True), AutoModelForCausalLM)
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name: weight * ("lora_A" not in name) for name, weight in weights.items()}, path, {"format": "pt"})
    check(base, folder, AutoModelForCausalLM)


def test_merging_restores_the_compiler_variables(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "adapter", base, *CARRIED["BOFT"])
    monkeypatch.setenv("CC", "my-cc")
    monkeypatch.delenv("CXX", raising=False)
    merged(base, folder)
    assert os.environ["CC"] == "my-cc"
    assert "CXX" not in os.environ


def test_adapters_of_experts_are_merged(tmp_path: Path) -> None:
    base = tiny.make_base(tmp_path / "base", "mixtral", num_local_experts=2)
    config = lora(target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj"], task_type="CAUSAL_LM")
    check(base, write(tmp_path / "adapter", base, config, AutoModelForCausalLM), AutoModelForCausalLM)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({change(name): tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def add(folder: Path, name: str) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(load_file(path) | {name: torch.ones(2)}, path, {"format": "pt"})


OF_ANOTHER_KIND: dict[str, Any] = {
    "PROMPT_TUNING": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    "PREFIX_TUNING": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    "VERA": VeraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"),
}


@pytest.mark.parametrize("kind", OF_ANOTHER_KIND)
def test_an_unsupported_kind_of_adapter_is_named(kind: str, base: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "adapter", base, OF_ANOTHER_KIND[kind], AutoModelForCausalLM)
    reason = "cannot be merged into weights" if kind == "VERA" else "adds vectors to the input"
    with pytest.raises(ModelError, match=rf"is of kind {kind}, which is not supported: it {reason}"):
        merged(base, folder)


# What is wrong, and what the message names.
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown kind": (
        lambda f: edit(f, peft_type="SUPER"),
        "is of kind SUPER, which is not supported: peft does not know",
    ),
    "no kind": (lambda f: edit(f, peft_type=None), "is not in peft's format"),
    "bias": (lambda f: edit(f, lora_bias=True), "lora_B.bias"),
    "aLoRA": (lambda f: edit(f, alora_invocation_tokens=[1, 2]), r"sets alora_invocation_tokens = \[1, 2\]"),
    "replicated layers": (lambda f: edit(f, layer_replication=[[0, 2], [1, 2]]), "sets layer_replication"),
    "QALoRA": (lambda f: edit(f, use_qalora=True), "sets use_qalora = True"),
    "later setting": (lambda f: edit(f, use_magic=0.5), r"sets use_magic = 0.5, which peft \S+ does not know"),
    "later setting, unset": (lambda f: edit(f, use_magic=None), ""),
    "rank in quotes": (lambda f: edit(f, r="4"), 'r is "4", but must be an integer'),
    "rank 0": (lambda f: edit(f, r=0), "`r` should be a positive integer"),
    "no targets": (lambda f: edit(f, target_modules=None), "the model has no place for"),
    "another rank": (lambda f: edit(f, r=8), "has shape"),
    "another layer": (lambda f: edit(f, layers_to_transform=[0]), "does not fit llama"),
    "one more target": (
        lambda f: edit(f, target_modules=[*LINEAR, "o_proj"]),
        "lacks base_model.model.layers.0.self_attn.o_proj",
    ),
    "compiled": (lambda f: rename(f, lambda n: n.replace("model.layers", "model._orig_mod.layers")), "`_orig_mod.`"),
    "wrapped": (lambda f: rename(f, lambda n: f"module.{n}"), "a training tool put `module.` before the names"),
    "bare": (
        lambda f: rename(f, lambda n: n.removeprefix("base_model.model.")),
        "peft's names begin with `base_model.model.`",
    ),
    "named": (lambda f: rename(f, lambda n: n.replace(".weight", ".default.weight")), "the adapter's own name"),
    "head alone": (lambda f: rename(f, lambda n: f"base_model.model.lm_head.{n}"), "only base_model.model.lm_head"),
    "another part": (lambda f: add(f, "base_model.model.pooler.weight"), "outside the decoder, first .*pooler.weight"),
    "another layer's": (
        lambda f: add(f, "base_model.model.layers.7.mlp.up_proj.lora_A.weight"),
        "the model has no place for .*layers.7",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(fault: str, base: Path, adapter: Path, tmp_path: Path) -> None:
    spoil, reason = FAULTS[fault]
    folder = write(tmp_path / "adapter", base, lora(), AutoModel)
    spoil(folder)
    if not reason:
        merged(base, folder)
        return
    with pytest.raises(ModelError, match=reason) as refused:
        merged(base, folder)
    assert "\n" not in str(refused.value)
    assert not str(refused.value).endswith(":")


def test_ignored_tensors_are_left_out(base: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "adapter", base, lora(), AutoModel)
    add(folder, "base_model.model.pooler.weight")
    _, left_out = merged(base, folder, "*.pooler.*")
    assert left_out == ["base_model.model.pooler.weight of adapter"]


def test_lora_bias_requires_a_bias_in_the_base(base: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "adapter", base, lora(lora_bias=True), AutoModelForCausalLM)
    with pytest.raises(ModelError, match=r"has a bias \(lora_bias\) for layers.0.mlp.down_proj"):
        merged(base, folder)


@pytest.mark.parametrize("name", ["embeddings", "saved norms", "trainable tokens", "AdaLoRA", "IA3", "dora"])
def test_an_untrained_adapter_is_refused(name: str, base: Path, tmp_path: Path) -> None:
    get_peft_model(CARRIED[name][1].from_pretrained(base), CARRIED[name][0]).save_pretrained(tmp_path)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="has no effect"):
        merged(base, tmp_path)
