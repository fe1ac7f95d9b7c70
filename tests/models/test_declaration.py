"""What repositories declare: which file wins, how attention is decided, and what is refused by name.

The vectors of published layouts are compared in tests/parity/test_families.py.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.utils import SafetensorsFileMetadata, SafetensorsRepoMetadata, TensorInfo
from safetensors.torch import load_file, save_file

from l2v.models import Encoder, Input, ModelError, UnsupportedModelError, load, sources
from l2v.models.declaration import Declaration
from l2v.models.native_types import native_config, native_type
from l2v.models.resolution import read_declaration
from l2v.models.sources import Source
from tests import tiny

OLD = "sentence_transformers.models."
NEW = "sentence_transformers.sentence_transformer.modules."
MEAN = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
INPUTS = [Input("hello world"), Input("a longer text of several words", "Find: "), Input("x" * 80)]


def write(folder: Path, name: str, content: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def edit(folder: Path, name: str, **changes: object) -> None:
    write(folder, name, json.loads((folder / name).read_text()) | changes)


def write_layout(
    folder: Path,
    *further: tuple[str, dict[str, Any]],
    pooling: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    root: str = OLD,
) -> None:
    """Writes sentence-transformers' files; `further` are modules after the pooling, with their configs."""
    kinds = ["Transformer", "Pooling", *(kind for kind, _ in further)]
    paths = ["", *(f"{index}_{kind}" for index, kind in enumerate(kinds[1:], 1))]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": root + kind}
        for index, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    write(folder, "modules.json", modules)
    write(folder, "1_Pooling/config.json", MEAN if pooling is None else pooling)
    write(folder, "sentence_bert_config.json", {"max_seq_length": 64} if settings is None else settings)
    write(folder, "config_sentence_transformers.json", model or {})
    for path, (_, config) in zip(paths[2:], further, strict=True):
        write(folder, f"{path}/config.json", config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config.json and sentence-transformers' files, and without weights."""
    write(tmp_path, "config.json", {"model_type": "llama", "hidden_size": 32, "max_position_embeddings": 256})
    write(tmp_path, "tokenizer_config.json", {"model_max_length": 128})
    write_layout(tmp_path)
    return tmp_path


@pytest.fixture
def checkpoint(base: Path, tmp_path: Path) -> Path:
    """The tiny Llama with sentence-transformers' files."""
    copy = Path(shutil.copytree(base, tmp_path / "checkpoint"))
    write_layout(copy)
    return copy


def read(folder: Path, *adapters: Path, positions: int | None = 256, **settings: object) -> Declaration:
    base, *rest = (Source(str(path), path) for path in (folder, *adapters))
    return read_declaration(base, rest, settings, positions, base)


def refused(folder: Path, reason: str, **settings: object) -> None:
    with pytest.raises(ModelError, match=reason) as error:
        read(folder, **settings)
    message = str(error.value)
    assert "\n" not in message
    assert not message.endswith(":")
    assert "download" not in message


def described(declaration: Declaration) -> dict[str, tuple[Any, str]]:
    return {name: (each["value"], each["origin"]) for name, each in declaration.describe().items()}


def test_a_text_is_cut_on_the_side_that_the_tokenizer_declares(checkpoint: Path) -> None:
    text = "ab cd ef gh ij kl"
    for side, kept in (("right", "ab cd"), ("left", "ij kl")):
        edit(checkpoint, "tokenizer_config.json", truncation_side=side)
        encoder = load(str(checkpoint), dtype="float32", doc_max_length=6)
        (cut,) = encoder.tokenize([Input(text)])
        assert (encoder.tokenizer.backend.decode(list(cut.ids)).strip(), cut.truncated) == (kept, True)


def test_the_first_declaration_of_each_value_wins(folder: Path) -> None:
    write_layout(
        folder,
        ("Normalize", {}),
        pooling={"embedding_dimension": 32, "pooling_mode": "lasttoken", "include_prompt": False},
        model={"prompts": {"query": "q: ", "document": None}, "default_prompt_name": "query", "truncate_dim": 16},
    )
    edit(folder, "config.json", matryoshka_dimensions=[32, 16], is_matryoshka=True)
    declared = described(read(folder))
    model = "config_sentence_transformers.json"
    assert declared == {
        "semantics": ("sentence-transformers", "modules.json"),
        "attention": ("causal", "modules.json"),
        "pooling": ("last_token", "1_Pooling/config.json"),
        "skip_instruction": (True, "1_Pooling/config.json"),
        "max_length": (64, "sentence_bert_config.json"),
        "doc_max_length": (64, "sentence_bert_config.json"),
        "template": ("none", "default"),
        "lower_case": (False, "sentence_bert_config.json"),
        "prompts": ({"query": "q: ", "document": ""}, model),
        "default_prompt_name": ("query", model),
        "similarity": ("cosine", model),
        "normalize": (True, "modules.json"),
        "truncate_dim": (16, model),
        "matryoshka_dimensions": ((16, 32), "config.json"),
        "int8_scale": ("maximum", "default"),
    }
    settings = {"attention": "bidirectional", "pooling": "mean", "max_length": 32, "skip_instruction": False}
    explicit = described(read(folder, **settings))
    assert {name: explicit[name] for name in settings} == {name: (value, "setting") for name, value in settings.items()}
    assert explicit["doc_max_length"] == (32, "setting")

    write(folder, "l2v.json", {"semantics": "sentence-transformers", "pooling_mode": "bos_token", "max_length": 48})
    own = described(read(folder))
    assert own["pooling"] == ("bos_token", "l2v.json")
    assert own["max_length"] == (48, "l2v.json")
    assert own["prompts"] == declared["prompts"]
    assert described(read(folder, pooling="mean"))["pooling"] == ("mean", "setting")


def test_a_plain_decoder_stays_bidirectional_with_the_semantics_of_llm2vec(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "config.json":
            path.unlink()
    for changes in (
        {},
        {"is_causal": True},
        {"use_bidirectional_attention": False},
        {"auto_map": {"AutoModel": "x.Y"}},
    ):
        edit(folder, "config.json", **changes)
        declared = described(read(folder))
        assert declared["attention"] == ("bidirectional", "default")
        assert declared["semantics"] == ("llm2vec", "default")
        assert [declared[name][0] for name in ("pooling", "max_length", "doc_max_length")] == ["mean", 512, 400]
    assert described(read(folder, attention="causal"))["attention"] == ("causal", "setting")
    assert described(read(folder, pooling="last_token"))["attention"] == ("bidirectional", "default")


@pytest.mark.parametrize(
    ("config", "attention", "origin"),
    [
        ({}, "causal", "modules.json"),
        ({"is_causal": False}, "bidirectional", "config.json"),
        ({"is_causal": True}, "causal", "config.json"),
        ({"use_bidirectional_attention": True}, "bidirectional", "config.json"),
        ({"use_bidirectional_attention": False}, "causal", "config.json"),
        ({"use_bidirectional_attention": False, "is_causal": False}, "bidirectional", "config.json"),
        ({"use_bidirectional_attention": "all"}, "bidirectional", "config.json"),
        ({"use_bidirectional_attention": "vision"}, "causal", "config.json"),
        ({"model_type": "llama_bidirec"}, "bidirectional", "config.json"),
        ({"model_type": "llama_bidirec", "is_causal": True}, "causal", "config.json"),
        ({"model_type": "bidirectional_pplx_qwen3"}, "bidirectional", "config.json"),
        ({"model_type": "bidirlm"}, "bidirectional", "config.json"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}, "causal", "modules.json"),
        ({"auto_map": {"AutoModel": "modeling_x.X"}, "is_causal": False}, "bidirectional", "config.json"),
    ],
)
def test_attention_is_causal_unless_the_config_declares_otherwise(
    config: dict[str, Any], attention: str, origin: str, folder: Path
) -> None:
    edit(folder, "config.json", **config)
    assert described(read(folder))["attention"] == (attention, origin)
    assert described(read(folder, pooling="mean"))["attention"] == (attention, origin)


def test_attention_that_only_remote_code_determines_must_be_set(folder: Path) -> None:
    edit(folder, "config.json", auto_map={"AutoModel": "modeling_qwen.Qwen2Model"})
    refused(folder, r"its own code \(Qwen2Model\).*set attention")
    assert read(folder, attention="bidirectional").causal is False
    edit(folder, "config.json", auto_map=None, use_bidirectional_attention="yes")
    refused(folder, "use_bidirectional_attention = 'yes'")
    edit(folder, "config.json", use_bidirectional_attention=None, is_causal="no")
    refused(folder, "is_causal = 'no'")


@pytest.mark.parametrize(
    ("settings", "tokenizer", "positions", "length", "origin"),
    [
        ({"max_seq_length": 99}, 50, 60, 99, "sentence_bert_config.json"),
        ({"max_seq_length": None}, 50, 60, 50, "tokenizer_config.json"),
        ({}, 50, 60, 50, "tokenizer_config.json"),
        ({}, 80, 60, 60, "config.json"),
        ({}, 1000000000000000019884624838656, 60, 60, "config.json"),
        ({}, 1e30, 60, 60, "config.json"),
        ({}, None, 60, 60, "config.json"),
        ({}, 50, None, 50, "tokenizer_config.json"),
        ({"tokenizer_args": {"model_max_length": 40}, "max_seq_length": 99}, 50, 60, 40, "sentence_bert_config.json"),
    ],
)
def test_the_length_is_the_one_of_sentence_transformers_6(
    settings: dict[str, Any], tokenizer: float | None, positions: int | None, length: int, origin: str, folder: Path
) -> None:
    write_layout(folder, settings=settings)
    write(folder, "tokenizer_config.json", {"model_max_length": tokenizer} if tokenizer else {})
    assert described(read(folder, positions=positions))["max_length"] == (length, origin)


def test_a_model_without_a_length_needs_a_setting(folder: Path) -> None:
    write_layout(folder, settings={})
    write(folder, "tokenizer_config.json", {})
    with pytest.raises(ModelError, match="set max_length"):
        read(folder, positions=None)
    assert read(folder, positions=None, max_length=77).doc_max_length.value == 77


@pytest.mark.parametrize(
    "root", [OLD, NEW, "sentence_transformers.base.modules.", "sentence_transformers.base.modules.transformer."]
)
def test_modules_have_the_names_of_every_release(root: str, folder: Path) -> None:
    write_layout(folder, ("Normalize", {"module_input_name": "sentence_embedding"}), ("Dropout", {}), root=root)
    assert read(folder).normalize.value


POOLINGS: list[tuple[dict[str, Any], str]] = [
    ({"embedding_dimension": 32, "pooling_mode": "cls"}, "bos_token"),
    ({"embedding_dimension": 32, "pooling_mode": ["weightedmean"]}, "weighted_mean"),
    ({"word_embedding_dimension": 32, "pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last_token"),
    ({"word_embedding_dimension": 32, "pooling_mode_cls_token": False}, "mean"),
    ({"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode": "mean"}, "mean"),
]


@pytest.mark.parametrize(("config", "pooling"), POOLINGS)
def test_both_schemas_of_the_pooling_are_read(config: dict[str, Any], pooling: str, folder: Path) -> None:
    write_layout(folder, pooling=config)
    assert read(folder).pooling.value == pooling
    assert not read(folder).skip_instruction.value


DENSE = {"in_features": 32, "out_features": 24}
REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown pooling": ({"pooling": {"pooling_mode": "attention"}}, "pooling attention"),
    "max pooling": ({"pooling": MEAN | {"pooling_mode": "max"}}, "the pooling max "),
    "combined": ({"pooling": MEAN | {"pooling_mode": ["mean", "max"]}}, "poolings mean and max"),
    "combined in the former schema": ({"pooling": MEAN | {"pooling_mode_cls_token": True}}, "poolings cls and mean"),
    "square root": ({"pooling": {"pooling_mode_mean_sqrt_len_tokens": True}}, "mean_sqrt_len_tokens"),
    "unknown key of the pooling": ({"pooling": MEAN | {"temperature": 2}}, "1_Pooling/config.json .* key temperature"),
    "wrong type": ({"pooling": MEAN | {"include_prompt": "no"}}, "include_prompt = 'no'"),
    "no pooling": ({"pooling": {}}, "lacks 1_Pooling/config.json"),
    "unknown key": ({"settings": {"stride": 3}}, "sentence_bert_config.json .* key stride"),
    "chat template": ({"settings": {"modality_config": {"text": {}, "message": {}}}}, "`message`"),
    "images": ({"settings": {"modality_config": {"text": {}, "image": {}}}}, "modalities text, image"),
    "another output": ({"settings": {"modality_config": {"text": {"method_output_name": "logits"}}}}, "logits"),
    "another task": ({"settings": {"transformer_task": "fill-mask"}}, "fill-mask"),
    "query length": ({"settings": {"query_length": 32}}, "sets query_length"),
    "arguments of the tokenizer": ({"settings": {"tokenizer_args": {"add_eos_token": True}}}, "add_eos_token = True"),
    "length of nothing": ({"settings": {"max_seq_length": 0}}, "max_seq_length = 0"),
    "sparse": ({"model": {"model_type": "SparseEncoder"}}, "SparseEncoder"),
    "euclidean": ({"model": {"similarity_fn_name": "euclidean"}}, "euclidean"),
    "unknown key of the model": ({"model": {"backend": "onnx"}}, "key backend"),
    "default without prompt": ({"model": {"default_prompt_name": "query"}}, "default_prompt_name query"),
    "prompt of no text": ({"model": {"prompts": {"query": 3}}}, "prompt query must be text"),
    "no truncation": ({"model": {"truncate_dim": -1}}, "truncate_dim = -1"),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_what_is_not_served_is_refused_by_name(fault: str, folder: Path) -> None:
    files, reason = REFUSALS[fault]
    write_layout(folder, **files)
    refused(folder, reason)
    assert read(folder, semantics="llm2vec").pooling.value == "mean"


def test_a_key_that_changes_windows_must_be_in_config_json(folder: Path) -> None:
    """transformers halves the windows when it reads the config."""
    key = {"use_bidirectional_attention": True}
    write_layout(folder, settings={"max_seq_length": 64, "config_kwargs": key})
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "gemma3_text"}
    write(folder, "config.json", config)
    refused(folder, r"windows of a gemma3_text: set it in config\.json")
    write(folder, "config.json", config | key)
    assert read(folder).windowed


MODULES: dict[str, tuple[list[tuple[str, dict[str, Any]]], str]] = {
    "unknown": ([("LayerNorm", {})], "a LayerNorm as module 2"),
    "pooled twice": ([("Pooling", MEAN)], "a Pooling as module 2"),
    "a second transformer": ([("Transformer", {})], "a Transformer as module 2"),
    "activation of nobody": ([("Dense", DENSE | {"activation_function": "my.Swish"})], "activation my.Swish"),
    "activation of parameters": ([("Dense", DENSE | {"activation_function": "torch.nn.PReLU"})], "torch.nn.PReLU"),
    "unknown key of Dense": ([("Dense", DENSE | {"rank": 2})], "key rank"),
    "Dense of tokens": ([("Dense", DENSE | {"module_input_name": "token_embeddings"})], "token_embeddings"),
    "Dense without sizes": ([("Dense", {"in_features": 32})], "lacks the layer's sizes"),
    "normalized tokens": ([("Normalize", {"module_input_name": "token_embeddings"})], "normalizes token_embeddings"),
}


@pytest.mark.parametrize("fault", MODULES)
def test_a_module_that_is_not_served_is_refused_by_name(fault: str, folder: Path) -> None:
    modules, reason = MODULES[fault]
    write_layout(folder, *modules)
    refused(folder, reason)


def test_invalid_lists_of_modules_are_refused(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    for changed, reason in (
        ([*modules, {"type": "custom_st.Transformer", "path": ""}], "module custom_st.Transformer"),
        ([modules[0] | {"path": "0_Transformer"}, modules[1]], "the folder 0_Transformer"),
        ([modules[0], modules[1] | {"path": "../other"}], "not within the repository"),
        (modules[:1], "has no Pooling"),
        (modules[1:], "as module 0"),
    ):
        write(folder, "modules.json", changed)
        refused(folder, reason)
    write(folder, "modules.json", [*modules, {"type": "st_quantize.FlexibleQuantizer", "path": "", "kwargs": ["q"]}])
    assert read(folder).pooling.value == "mean"
    (folder / "modules.json").write_text("{}")
    with pytest.raises(ModelError, match=r"has no Pooling|not a list of modules"):
        read(folder)
    (folder / "modules.json").unlink()
    refused(folder, "has sentence_bert_config.json but no modules.json")


def test_config_json_alone_can_declare_the_pooling(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"model_type": "llama_bidirec", "hidden_size": 32, "pooling": "last"})
    declared = described(read(tmp_path))
    assert declared["semantics"] == ("sentence-transformers", "config.json")
    assert declared["pooling"] == ("last_token", "config.json")
    assert declared["attention"] == ("bidirectional", "config.json")
    edit(tmp_path, "config.json", pooling="weighted_avg")
    refused(tmp_path, "the pooling weighted_avg")


def test_published_types_become_native_ones(tmp_path: Path) -> None:
    gemma = {"model_type": "bidirlm", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 512, "auto_map": {}}
    assert native_config(gemma) == {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 512,
        "use_bidirectional_attention": True,
    }
    voyage = {"model_type": "qwen3", "auto_map": {"AutoModel": "modeling_qwen3_bidirectional.Qwen3BidirectionalModel"}}
    native = native_type(voyage)
    assert native is not None
    assert native.projection == "linear.weight"
    plain = {"model_type": "qwen3", "auto_map": {"AutoModel": 3}}
    assert native_type(plain) is None
    assert native_config(plain) == plain
    write(tmp_path, "config.json", voyage | {"hidden_size": 32})
    refused(tmp_path, "lacks hidden_size or num_labels")


def test_the_last_source_with_a_declaration_wins(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    write(adapter, "adapter_config.json", {})
    assert read(folder, adapter).semantics.origin == "modules.json"
    write(adapter, "llm2vec_config.json", {"pooling_mode": "weighted_mean"})
    declared = described(read(folder, adapter))
    assert declared["semantics"] == ("llm2vec", "llm2vec_config.json")
    assert declared["attention"] == ("bidirectional", "default")
    assert declared["pooling"] == ("weighted_mean", "llm2vec_config.json")
    # What training writes for an adapter of a model with sentence-transformers' files.
    write(adapter, "llm2vec_config.json", {"semantics": "sentence-transformers", "attention": "bidirectional"})
    declared = described(read(folder, adapter))
    assert declared["attention"] == ("bidirectional", "llm2vec_config.json")
    assert declared["pooling"] == ("mean", "1_Pooling/config.json")


def test_unknown_settings_are_named(folder: Path) -> None:
    for name in ("semantics", "attention", "pooling", "template"):
        with pytest.raises(ModelError, match=f"{name} sideways is unknown: use one of"):
            read(folder, **{name: "sideways"})


def test_one_setting_restores_the_vectors_of_earlier_releases(base: Path, checkpoint: Path) -> None:
    served = load(str(checkpoint), dtype="float32")
    former = load(str(checkpoint), dtype="float32", semantics="llm2vec")
    np.testing.assert_array_equal(former.encode(INPUTS), load(str(base), dtype="float32").encode(INPUTS))
    assert np.abs(served.encode(INPUTS) - former.encode(INPUTS)).max() > 1e-2
    assert "L2V_SEMANTICS=llm2vec" in served.declaration.notice
    assert "attention causal, pooling mean, max_length 64" in served.declaration.notice
    assert former.declaration.notice == ""


def test_an_export_of_a_later_format_is_refused(base: Path, tmp_path: Path) -> None:
    export = Path(shutil.copytree(base, tmp_path / "export"))
    write(export, "l2v.json", {"format": 3})
    with pytest.raises(ModelError, match="has the format 3, which needs a later l2v"):
        load(str(export))


def test_an_export_of_the_first_release_is_served_unchanged(base: Path, tmp_path: Path) -> None:
    """The files that `l2v export` 0.1 wrote, for an encoder with last-token pooling."""
    export = Path(shutil.copytree(base, tmp_path / "export"))
    edit(export, "config.json", is_causal=False, _name_or_path="some/base")
    own = {"format": 1, "base": "some/base", "template": "none", "pooling_mode": "last_token", "max_length": 512}
    own |= {"doc_max_length": 400, "skip_instruction": True, "sources": [], "sentence_transformers_limits": []}
    write(export, "l2v.json", own)
    write_layout(
        export,
        pooling={"word_embedding_dimension": 32, "pooling_mode": "lasttoken", "include_prompt": False},
        settings={"max_seq_length": 512},
        model={"similarity_fn_name": "cosine", "prompts": {}},
    )
    again = load(str(export), dtype="float32")
    assert described(again.declaration)["attention"] == ("bidirectional", "default")
    expected = load(str(base), dtype="float32", pooling="last_token")
    np.testing.assert_array_equal(again.encode(INPUTS), expected.encode(INPUTS))
    assert again.declaration.notice == ""


def test_the_first_token_of_a_causal_model_cannot_be_pooled(checkpoint: Path) -> None:
    write(checkpoint, "1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": "cls"})
    with pytest.raises(UnsupportedModelError, match="gives every text the same vector"):
        load(str(checkpoint), dtype="float32")
    load(str(checkpoint), dtype="float32", attention="bidirectional")


def test_a_length_beyond_the_positions_is_refused_with_its_origin(checkpoint: Path) -> None:
    write(checkpoint, "sentence_bert_config.json", {"max_seq_length": 2048})
    with pytest.raises(ModelError, match=r"2048 \(sentence_bert_config.json\) exceeds the 1024 positions"):
        load(str(checkpoint), dtype="float32")


def write_dense(folder: Path, tensors: dict[str, torch.Tensor], **config: object) -> None:
    write_layout(folder, ("Dense", DENSE | {"bias": False, "activation_function": "torch.nn.Identity"} | config))
    save_file(tensors, folder / "2_Dense" / "model.safetensors")


def test_dense_layers_with_a_residual_and_from_a_pickle(checkpoint: Path) -> None:
    plain = load(str(checkpoint), dtype="float32").encode(INPUTS)
    generator = torch.Generator().manual_seed(0)
    weight, residual = (torch.randn(24, 32, generator=generator) for _ in range(2))
    tensors = {"linear.weight": weight, "residual.weight": residual}
    write_dense(checkpoint, tensors, use_residual=True, activation_function="torch.nn.modules.activation.ReLU")
    file = checkpoint / "2_Dense" / "model.safetensors"
    torch.save(load_file(file), file.with_name("pytorch_model.bin"))
    file.unlink()
    served = load(str(checkpoint), dtype="float32")
    expected = np.maximum(plain @ weight.T.numpy(), 0) + plain @ residual.T.numpy()
    np.testing.assert_allclose(served.encode(INPUTS), expected, atol=1e-4)
    assert (served.dimensions, served.describe()["dimensions"]) == (24, 24)
    assert served.describe()["parameters"] - load(str(checkpoint), semantics="llm2vec").describe()["parameters"] == 1536


@pytest.mark.parametrize(
    ("tensors", "config", "reason"),
    [
        ({"linear.weight": torch.ones(24, 32)}, {"bias": True}, "lacks linear.bias"),
        ({"linear.weight": torch.ones(24, 32), "norm.weight": torch.ones(24)}, {}, "norm.weight"),
        ({"linear.weight": torch.ones(24, 31)}, {}, r"shape \[24, 31\]"),
        ({"linear.weight": torch.full((24, 32), torch.nan)}, {}, "NaN"),
        ({"linear.weight": torch.ones(24, 16)}, {"in_features": 16}, "expects 16 numbers"),
    ],
)
def test_layers_whose_weights_do_not_fit_are_refused(
    tensors: dict[str, torch.Tensor], config: dict[str, Any], reason: str, checkpoint: Path
) -> None:
    write_dense(checkpoint, tensors, **config)
    with pytest.raises(ModelError, match=reason):
        load(str(checkpoint), dtype="float32")


def test_mismatched_widths_are_refused(checkpoint: Path) -> None:
    write_layout(checkpoint, pooling=MEAN | {"word_embedding_dimension": 64})
    with pytest.raises(ModelError, match="expects states of 64 numbers, but the model's states have 32"):
        load(str(checkpoint), dtype="float32")
    write_layout(checkpoint, ("Dense", DENSE))
    with pytest.raises(ModelError, match=r"lacks 2_Dense/model.safetensors"):
        load(str(checkpoint), dtype="float32")


def test_per_token_layers_run_before_pooling(checkpoint: Path) -> None:
    """A layer after `Normalize` gets the normalized vector."""
    plain = load(str(checkpoint), dtype="float32")
    write_layout(
        checkpoint,
        ("Normalize", {}),
        ("Dense", DENSE | {"in_features": 24, "out_features": 8, "bias": False}),
        pooling=MEAN | {"word_embedding_dimension": 24},
    )
    modules = json.loads((checkpoint / "modules.json").read_text())
    modules.insert(1, {"path": "0_Dense", "type": f"{OLD}Dense"})
    write(checkpoint, "modules.json", modules)
    tokens = {"module_input_name": "token_embeddings", "bias": False, "activation_function": "torch.nn.Tanh"}
    write(checkpoint, "0_Dense/config.json", DENSE | tokens)
    generator = torch.Generator().manual_seed(0)
    first, last = torch.randn(24, 32, generator=generator), torch.randn(8, 24, generator=generator)
    save_file({"linear.weight": first}, checkpoint / "0_Dense" / "model.safetensors")
    save_file({"linear.weight": last}, checkpoint / "3_Dense" / "model.safetensors")
    served = load(str(checkpoint), dtype="float32")
    (encoding,) = plain.tokenize(INPUTS[:1])
    (states,) = plain.forward([type(encoding)(encoding.ids, 0)])
    pooled = np.tanh(states @ first.T.numpy()).mean(0)
    expected = np.tanh(pooled / np.linalg.norm(pooled) @ last.T.numpy())
    np.testing.assert_allclose(served.encode(INPUTS[:1])[0], expected, atol=1e-5)


def test_causal_rows_are_the_same_alone_and_packed(base: Path) -> None:
    encoder = load(str(base), dtype="float32", attention="causal", semantics="sentence-transformers")
    inputs = [Input(f"text {i} " + "word " * (i * 7 % 30), "Find: " if i % 2 else "") for i in range(20)]
    together = encoder.encode(inputs, max_batch_tokens=100_000)
    alone = np.concatenate([encoder.encode([input_]) for input_ in inputs])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert encoder.describe()["attention"] == "causal"
    assert any(line.startswith("attention: causal") for line in encoder.evidence)


def test_causal_models_apply_their_windows(tmp_path: Path) -> None:
    """A causal Mistral equals transformers'; bidirectional rows longer than the window are refused."""
    folder = tiny.make_base(tmp_path, "mistral", sliding_window=8)
    write_layout(folder)
    encoder: Encoder = load(str(folder), dtype="float32", prepack=False)
    (encoding,) = encoder.tokenize(INPUTS[2:])
    encoder.model.set_attn_implementation("eager")
    with torch.inference_mode():
        expected = encoder.model(torch.tensor([list(encoding.ids)]), use_cache=False).last_hidden_state[0].mean(0)
    encoder.model.set_attn_implementation("l2v_packed")
    np.testing.assert_allclose(encoder.encode(INPUTS[2:])[0], expected.numpy(), atol=1e-4)
    with pytest.raises(UnsupportedModelError, match="must not exceed its window of 8"):
        load(str(folder), dtype="float32", attention="bidirectional")


@pytest.fixture
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The patterns of the files that are asked of the Hub, which answers with `folder`."""
    asked: list[list[str]] = []

    def download(repository: str, revision: str | None, allow_patterns: list[str], **_: object) -> str:
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr(sources, "snapshot_download", download)
    return asked


def test_the_folders_of_modules_are_downloaded(folder: Path, asked: list[list[str]]) -> None:
    (folder / "model.safetensors").touch()
    sources.resolve("some/model")
    assert "1_Pooling/*.json" in asked[-1]
    assert "1_Pooling/*.safetensors" in asked[-1]
    asked.clear()
    (folder / "modules.json").unlink()
    sources.resolve("some/model")
    assert "*.safetensors" not in asked[0]
    assert "*.safetensors" in asked[1]
    assert len(asked) == 2


def test_quantized_weights_are_refused_before_they_are_downloaded(
    folder: Path, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their headers: a mark in config.json alone may be a remnant of training."""
    edit(folder, "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    tensors = {"layers.0.mlp.up_proj.qweight": TensorInfo("I32", [4, 8], (0, 128))}

    def headers(repository: str, revision: str | None) -> SafetensorsRepoMetadata:
        files = {"model.safetensors": SafetensorsFileMetadata({}, tensors)}
        return SafetensorsRepoMetadata(metadata=None, sharded=False, weight_map={}, files_metadata=files)

    monkeypatch.setattr(sources, "get_safetensors_metadata", headers)
    with pytest.raises(ModelError, match=r"weights of some/model are quantized \(gptq; for example layers.0.mlp"):
        sources.resolve("some/model")
    assert len(asked) == 1
    tensors.clear()
    (folder / "model.safetensors").touch()
    sources.resolve("some/model")


def test_an_adapter_saved_by_sentence_transformers_keeps_its_declaration(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    """It saves a model with peft as an adapter beside modules.json, without a config.json."""
    saved = Path(shutil.copytree(adapter, tmp_path / "saved"))
    write_layout(saved, ("Normalize", {}), pooling={"embedding_dimension": 32, "pooling_mode": "lasttoken"})
    encoder = load(str(saved), dtype="float32")
    assert described(encoder.declaration)["attention"] == ("causal", "modules.json")
    plain = load(str(base), [str(adapter)], dtype="float32", attention="causal", semantics="sentence-transformers")
    states = [plain.forward([type(row)(row.ids, 1)])[0] for row in plain.tokenize(INPUTS[:2])]
    assert encoder.pooling == "last_token"
    np.testing.assert_allclose(encoder.encode(INPUTS[:2]), states, atol=1e-5)


def test_no_notice_for_types_that_the_first_release_refused(folder: Path) -> None:
    assert "L2V_SEMANTICS" in read(folder).notice
    edit(folder, "config.json", model_type="llama_bidirec")
    assert read(folder).notice == ""
