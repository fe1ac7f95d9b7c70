"""Tensors of a base: an unexpected or a missing one is refused with its name and the likely cause."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from l2v.models import ModelError, SourceError
from l2v.models.checkpoint import Checkpoint
from l2v.models.decoder import read_config, read_decoder
from l2v.models.misfits import left_out, summary
from l2v.models.quantization.checkpoints import quantized_tensor
from l2v.models.sources import Source, resolve
from tests import tiny

Weights = dict[str, torch.Tensor]
ONE = torch.ones(2)
Q_PROJ = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "m"))


def change(folder: Path, spoil: Callable[[Weights], object]) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    made = spoil(weights)
    save_file(made if isinstance(made, dict) else weights, path, {"format": "pt"})


def edit(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def read(folder: Path, *ignore: str, claimed: tuple[str, ...] = ()) -> tuple[torch.nn.Module, list[str]]:
    source = Source("x/y", folder)
    return read_decoder(source, read_config(source), torch.float32, ignore, claimed)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as refused:
        read(folder)
    message = str(refused.value)
    assert "x/y" in message
    assert "\n" not in message
    assert not message.endswith(":")
    return message


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def renamed(old: str, new: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name.replace(old, new): tensor for name, tensor in weights.items()}


UNEXPECTED: dict[str, tuple[Callable[[Weights], object], str]] = {
    "bias": (
        lambda w: w.update({f"{Q_PROJ}.bias": ONE}),
        "q_proj.bias: config.json declares no such bias (attention_bias",
    ),
    "surplus layer": (
        lambda w: w.update({"model.layers.2.x.weight": ONE}),
        "num_hidden_layers = 2, but the weights have",
    ),
    "unmerged LoRA": (renamed("self_attn.q_proj.", "self_attn.q_proj.base_layer."), "that was not merged"),
    "LoRA factors": (lambda w: w.update({f"{Q_PROJ}.lora_A.weight": ONE}), "lora_A.weight belongs to an adapter"),
    "head of another class": (lambda w: w.update({"linear.weight": ONE}), "first linear.weight: it belongs to another"),
    "classifier": (lambda w: w.update({"score.weight": ONE}), "first score.weight"),
    "query norm": (lambda w: w.update({"model.layers.0.self_attn.q_norm.weight": ONE}), "correct model_type"),
    "data parallel": (prefixed("module."), "contain `module.`"),
    "compiled": (prefixed("_orig_mod."), "contain `_orig_mod.`"),
    "compiled layers": (renamed("model.layers.0.", "model.layers.0._orig_mod."), "contain `_orig_mod.`|first"),
    "doubled": (prefixed("model."), "contain `model.model.`"),
    "within a larger model": (prefixed("llm."), "contain `llm.model.`"),
    "twice": (lambda w: w.update({"norm.weight": w["model.norm.weight"].clone()}), "with and without `model.`"),
}


@pytest.mark.parametrize("kind", UNEXPECTED)
def test_an_unexpected_tensor_is_refused(kind: str, folder: Path) -> None:
    spoil, reason = UNEXPECTED[kind]
    change(folder, spoil)
    message = refusal(folder)
    assert any(part in message for part in reason.split("|")), message
    assert "again" not in message.replace("save the model again", "").replace("save again", "")


MISSING: dict[str, tuple[Callable[[Weights], object], dict[str, object], str]] = {
    "layer": (lambda w: None, {"num_hidden_layers": 3}, "lack 9 tensors of LlamaModel, first layers.2.input_layernorm"),
    "bias": (
        lambda w: None,
        {"attention_bias": True},
        "first layers.0.self_attn.k_proj.bias: config.json has the wrong model_type, or declares biases",
    ),
    "norm": (lambda w: w.pop("model.norm.weight"), {}, "lack 1 tensor of LlamaModel, first norm.weight"),
    "embeddings": (
        lambda w: w.pop("model.embed_tokens.weight"),
        {},
        "embed_tokens.weight: config.json has the wrong model_",
    ),
    "vocabulary": (
        lambda w: None,
        {"vocab_size": 300},
        "has shape [260, 32], but the config requires shape [300, 32] (vocab_",
    ),
    "head_dim": (lambda w: None, {"head_dim": 16}, "head_dim"),
}


@pytest.mark.parametrize("kind", MISSING)
def test_a_missing_or_misshapen_tensor_is_refused(kind: str, folder: Path) -> None:
    spoil, values, reason = MISSING[kind]
    change(folder, lambda weights: [spoil(weights)])
    edit(folder, **values)
    message = refusal(folder)
    assert reason in message or kind == "head_dim", message
    assert "again" not in message


def test_tensors_that_an_encoder_does_not_need_are_left_out_and_listed(folder: Path, base: Path) -> None:
    surplus = [
        "lm_head.bias",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.1.self_attn.rotary_emb.inv_freq",
        "model.visual.blocks.0.norm.weight",
        "model.vision_tower.layers.3.weight",
        "model.mtp.layers.0.weight",
        "model.layers.0.self_attn.k_scale",
        "v_head.summary.weight",
    ]
    change(folder, lambda weights: weights.update({name: ONE.clone() for name in surplus}))
    decoder, names = read(folder)
    assert names == sorted(
        {name.replace(".0.", ".*.").replace(".1.", ".*.").replace(".3.", ".*.") for name in surplus}
        | {"lm_head.weight"}
    )
    assert decoder.state_dict().keys() == read(base)[0].state_dict().keys()


def test_heads_are_left_out_if_the_class_has_them(folder: Path) -> None:
    change(folder, lambda weights: weights.update({"score.weight": ONE}))
    edit(folder, architectures=["LlamaForSequenceClassification"])
    assert read(folder)[1] == ["lm_head.weight", "score.weight"]


def test_multi_token_prediction_layers_are_left_out(folder: Path) -> None:
    change(folder, lambda weights: weights.update({"model.layers.2.eh_proj.weight": ONE}))
    edit(folder, num_nextn_predict_layers=1)
    assert "model.layers.*.eh_proj.weight" in read(folder)[1]


def test_ignore_tensors_names_further_tensors(folder: Path) -> None:
    change(folder, lambda weights: weights.update({"linear.weight": ONE, f"{Q_PROJ}.bias": ONE.clone()}))
    assert read(folder, "linear.*", "*.q_proj.bias")[1] == [
        "linear.weight",
        "lm_head.weight",
        "model.layers.*.self_attn.q_proj.bias",
    ]
    with pytest.raises(SourceError, match=r"q_proj\.bias"):
        read(folder, "linear.*")
    with pytest.raises(SourceError, match=r"lack 1 tensor of LlamaModel, first norm\.weight"):
        read(folder, "linear.*", "*.bias", "model.norm.*")


def test_a_tensor_that_the_caller_reads_is_not_left_out(folder: Path) -> None:
    change(folder, lambda weights: weights.update({"linear.weight": ONE}))
    assert read(folder, claimed=("linear.weight",))[1] == ["lm_head.weight"]
    torch.testing.assert_close(Checkpoint.of(Source("x/y", folder)).tensor("linear.weight"), ONE)


QUANTIZED: dict[str, tuple[Callable[[Weights], object], dict[str, object], str]] = {
    "fp8": (lambda w: {n: t.to(torch.float8_e4m3fn) if "proj" in n else t for n, t in w.items()}, {}, "F8_E4M3"),
    "fp8 scales": (lambda w: w.update({f"{Q_PROJ}.weight_scale_inv": ONE}), {}, "weight_scale_inv"),
    "int8": (lambda w: {n: t.to(torch.int8) if "proj" in n else t for n, t in w.items()}, {}, "I8"),
    "bitsandbytes": (
        lambda w: w.update({f"{Q_PROJ}.weight": torch.ones(4, 1, dtype=torch.uint8), f"{Q_PROJ}.weight.absmax": ONE}),
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        "bitsandbytes",
    ),
    "gptq": (
        lambda w: w.update({f"{Q_PROJ}.qweight": ONE.int(), f"{Q_PROJ}.scales": ONE, f"{Q_PROJ}.g_idx": ONE.clone()}),
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        "gptq",
    ),
    "awq without a mark": (lambda w: w.update({f"{Q_PROJ}.qzeros": ONE.int()}), {}, "qzeros"),
    "compressed": (
        lambda w: w.update({f"{Q_PROJ}.weight_packed": ONE.int(), f"{Q_PROJ}.weight_shape": ONE.long()}),
        {"quantization_config": {"quant_method": "compressed-tensors"}},
        "compressed-tensors",
    ),
    "mlx": (lambda w: w.update({f"{Q_PROJ}.scales": ONE}), {"quantization": {"group_size": 64, "bits": 4}}, "4 bits"),
}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_weights_are_refused_as_such(kind: str, folder: Path) -> None:
    spoil, values, sign = QUANTIZED[kind]
    change(folder, spoil)
    edit(folder, **values)
    message = refusal(folder)
    assert "are quantized" in message
    assert "full-precision model" in message
    assert sign in message
    assert "install" not in message


def test_full_precision_weights_with_a_quantization_config_are_served(folder: Path, base: Path) -> None:
    edit(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    decoder, names = read(folder)
    assert names[0] == "quantization_config of config.json (bitsandbytes; the weights have full precision)"
    assert not hasattr(decoder.config, "quantization_config")
    for name, weight in read(base)[0].state_dict().items():
        torch.testing.assert_close(decoder.state_dict()[name], weight, rtol=0, atol=0)


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.mlp.experts.gate_up_proj_blocks", "a.weight.quant_state.bitsandbytes__nf4", "a.weight:qdata"],
)
def test_names_of_quantized_tensors_are_recognized(name: str) -> None:
    assert quantized_tensor({"b.weight": "F32", name: "U8"}) == name
    assert not quantized_tensor({"b.weight": "BF16", "b.position_ids": "I64", "b.bias": "F32", "h.attn.bias": "BOOL"})


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (lambda f: (f / "model.safetensors").unlink(), "neither model.safetensors nor pytorch_model.bin"),
    "GGUF": (lambda f: (f / "model.safetensors").rename(f / "m-Q4_K_M.gguf"), "GGUF files are quantized"),
    "Meta's": (
        lambda f: (f / "model.safetensors").rename(f / "consolidated.00.pth"),
        "consolidated.00.pth but no model.s",
    ),
    "variant": (
        lambda f: (f / "model.safetensors").rename(f / "model.fp16.safetensors"),
        "model.fp16.safetensors but no",
    ),
    "shards without an index": (
        lambda f: (f / "model.safetensors").rename(f / "model-00001-of-00002.safetensors"),
        "no model.safetensors.index.json",
    ),
    "empty": (
        lambda f: (f / "model.safetensors").write_bytes(b""),
        "model.safetensors of x/y is empty: download it again",
    ),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
        "is damaged or incomplete",
    ),
    "a shard missing": (
        lambda f: [
            (f / "model.safetensors").rename(f / "a.safetensors"),
            (f / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}'
            ),
        ],
        "is incomplete: b.safetensors, which model.safetensors.index.json names, is missing",
    ),
    "an index without files": (
        lambda f: [
            (f / "model.safetensors").unlink(),
            (f / "model.safetensors.index.json").write_text('{"metadata": {}}'),
        ],
        "names no files",
    ),
    "an index that leads outside": (
        lambda f: [
            (f / "model.safetensors").unlink(),
            (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../a.safetensors"}}'),
        ],
        "which is not a file of its folder",
    ),
    "a training state": (
        lambda f: [(f / "model.safetensors").unlink(), torch.save({"epoch": 3}, f / "pytorch_model.bin")],
        "its entry 'epoch' is not a tensor",
    ),
    "a list": (
        lambda f: [(f / "model.safetensors").unlink(), torch.save([ONE], f / "pytorch_model.bin")],
        "is not a file of weights",
    ),
    "no pickle": (
        lambda f: [(f / "model.safetensors").unlink(), (f / "pytorch_model.bin").write_bytes(b"hello" * 9)],
        "pytorch_model.bin of x/y is damaged",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_of_weights_that_cannot_be_read_are_named(kind: str, folder: Path) -> None:
    spoil, reason = FILES[kind]
    spoil(folder)
    message = refusal(folder)
    assert reason in message
    assert ("again" in message) == (
        kind
        in {"empty", "truncated", "a shard missing", "shards without an index", "no pickle", "an index without files"}
    )


def test_shards_and_pickles_are_read(folder: Path, base: Path) -> None:
    expected = read(base)[0].state_dict()
    weights = load_file(folder / "model.safetensors")
    names = list(weights)
    save_file({n: weights[n] for n in names[:5]}, folder / "model-00001-of-00002.safetensors")
    save_file({n: weights[n] for n in names[5:]}, folder / "model-00002-of-00002.safetensors")
    index = {n: f"model-0000{1 + (i >= 5)}-of-00002.safetensors" for i, n in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "model.safetensors").unlink()
    for round_ in range(3):
        if round_:
            for path in folder.glob("*.safetensors*"):
                path.unlink()
            torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=round_ == 1)
        for name, weight in read(folder)[0].state_dict().items():
            torch.testing.assert_close(weight, expected[name], rtol=0, atol=0)


def test_a_tensor_in_two_shards_is_refused(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "b.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}')
    assert "is in two weight files" in refusal(folder)


def test_a_git_lfs_pointer_is_named(folder: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        with pytest.raises(SourceError, match=f"{name} of .* is a Git LFS pointer .*git lfs pull"):
            resolve(str(folder))
        (folder / name).write_bytes(whole)


def test_experts_that_transformers_fuses_fit(tmp_path: Path) -> None:
    base = tiny.make_base(tmp_path, "mixtral", num_local_experts=2)
    assert "model.layers.0.block_sparse_moe.experts.0.w1.weight" in load_file(base / "model.safetensors")
    assert read(base)[1] == ["lm_head.weight"]


def test_summaries_merge_names_that_differ_in_numbers() -> None:
    assert summary(["a.0.b", "a.1.b", "c"]) == ["a.*.b", "c"]
    config = read_config(Source("demo", Path(__file__).parents[2] / "models" / "demo" / "base"))
    assert left_out("rotary_emb.inv_freq", config)
    assert not left_out("model.layers.0.mlp.lm_head_proj.weight", config)
    assert not np.any([left_out(name, config) for name in ("linear.weight", "model.norm.bias", "score.weight")])
