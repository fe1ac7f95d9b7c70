"""Sources of every kind, their order and revisions; and every way a source can be bad, with its error message."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from l2v.models import AdapterError, Input, ModelError, SourceError, UnsupportedModelError, load, progress
from l2v.models.declaration import Declared
from l2v.models.decoder import read_config
from l2v.models.lengths import check_max_length
from l2v.models.published import STACKS
from l2v.models.sources import resolve
from l2v.models.types import Attention
from tests import tiny
from tests.parity.hub import make_hub_cache

INPUTS = [Input("hello world"), Input("a text", "an instruction:")]


def vectors(model: str | Path, *adapters: str | Path) -> np.ndarray:
    return load(str(model), [str(adapter) for adapter in adapters], dtype="float32").encode(INPUTS)


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_merging_adds_the_low_rank_product_to_the_weights(base: Path, adapter: Path) -> None:
    plain, merged = (
        load(str(base), adapters, dtype="float32", prepack=False).model for adapters in ([], [str(adapter)])
    )
    weights = load_file(adapter / "adapter_model.safetensors")
    name = "layers.1.self_attn.q_proj"
    a, b = (weights[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    expected = plain.get_submodule(name).weight + 2.0 * (b @ a)  # lora_alpha 8 over r 4
    torch.testing.assert_close(merged.get_submodule(name).weight, expected)


def test_stages_are_logged_and_shown_on_a_terminal(
    base: Path,
    adapter: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    load(str(base), [str(adapter)], dtype="float32")
    reading, merging = "reading the weights", f"merging {adapter.name}"
    assert f"l2v: {merging}: 0.0 of 0.0 GB\n" in capsys.readouterr().err
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # for rich, a terminal
    load(str(base), [str(adapter)], dtype="float32")
    shown = capsys.readouterr().err
    assert all(stage in shown for stage in (reading, merging, "verifying"))
    assert "l2v:" not in shown
    caplog.set_level("INFO", progress.logger.name)
    load(str(base), [str(adapter)], dtype="float32")
    records = [record.__dict__ for record in caplog.records if record.name == progress.logger.name]
    assert list(dict.fromkeys(record["stage"] for record in records)) == [reading, merging, "verifying"]
    last = {record["stage"]: record for record in records}
    assert (
        last[reading]["bytes"]
        == last[reading]["total_bytes"]
        > last[merging]["bytes"]
        == last[merging]["total_bytes"]
        > 0
    )


def test_an_adapter_folder_brings_its_base(base: Path, adapter: Path) -> None:
    np.testing.assert_array_equal(vectors(adapter), vectors(base, adapter))
    assert np.abs(vectors(base) - vectors(adapter)).max() > 1e-2


def test_adapters_are_merged_in_the_order_given(base: Path, adapter: Path, tmp_path: Path) -> None:
    second = tiny.make_adapter(tmp_path / "second", base, seed=7)
    both = load(str(adapter), [str(second)], dtype="float32")
    assert [source["name"] for source in both.provenance] == [base.name, adapter.name, "second"]
    np.testing.assert_array_equal(both.encode(INPUTS), vectors(base, adapter, second))
    assert np.abs(both.encode(INPUTS) - vectors(adapter)).max() > 1e-2


def test_a_published_short_name_brings_base_mntp_and_second_adapter() -> None:
    encoder = load("sheared-llama-1.3b-supervised", dtype="float32")
    assert [(source["name"], source["kind"]) for source in encoder.provenance] == [
        ("princeton-nlp/Sheared-LLaMA-1.3B", "base"),
        ("McGill-NLP/LLM2Vec-Sheared-LLaMA-mntp", "adapter"),
        ("McGill-NLP/LLM2Vec-Sheared-LLaMA-mntp-supervised", "adapter"),
    ]
    assert all(len(source["revision"]) == 40 for source in encoder.provenance)
    assert encoder.base == "princeton-nlp/Sheared-LLaMA-1.3B"


def test_a_second_adapter_directly_on_the_base_is_refused(base: Path) -> None:
    """Its adapter_config.json names the base, so that the MNTP adapter would be missing in silence."""
    raw, mntp = "princeton-nlp/Sheared-LLaMA-1.3B", "McGill-NLP/LLM2Vec-Sheared-LLaMA-mntp"
    second = f"{mntp}-supervised"
    reason = f"adapter {second} was trained on top of {mntp}, which is missing: set the model to sheared-llama-1.3b-sup"
    with pytest.raises(SourceError, match=reason):
        load(raw, [second])
    with pytest.raises(SourceError, match=reason):
        load(raw, lora_modules={"supervised": second}, dtype="float32")
    assert load(raw, [mntp, second], dtype="float32").provenance[1]["name"] == mntp
    assert load(mntp, lora_modules={"supervised": second}, dtype="float32").adapters.modules


def test_an_adapter_with_another_tokenizer_is_logged(
    adapter: Path, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (copy(adapter, tmp_path / name) for name in ("first", "second"))
    for folder in (first, second):
        tiny.make_tokenizer(folder)
    load(str(base), [str(first), str(second)], dtype="float32")
    assert "tokenizer" not in caplog.text
    edit(second / "tokenizer_config.json", truncation_side="left")
    load(str(base), [str(first), str(second)], dtype="float32")
    assert f"the tokenizer of {second} is ignored: that of {first}, which differs, is used" in caplog.messages


def test_the_template_follows_the_base_that_the_adapter_names() -> None:
    assert load("mistral-7b-supervised").template == "inst"
    assert load("llama-3-8b-supervised").template == "llama-3-instruct"
    assert load("llama-3-8b-supervised", template="none").template == "none"


def test_all_published_stacks_are_hub_ids() -> None:
    assert len(STACKS) == 54
    for name, stack in STACKS.items():
        assert stack.licence
        if name != "demo":
            assert all(source.count("/") == 1 for source in (stack.model, *stack.adapters))
            assert stack.model == stack.base or stack.model.startswith("McGill-NLP/LLM2Vec-")


def test_a_revision_can_be_pinned(hub: Path, base: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_hub_cache(hub, {"someone/pinned": base})
    caplog.set_level("INFO")
    commit = resolve("someone/pinned").revision
    assert caplog.messages == ["downloading someone/pinned, unless it is in the Hub cache"]
    assert resolve(f"someone/pinned@{commit}").revision == commit
    with pytest.raises(SourceError, match="someone/pinned@v2 is not in the local Hub cache"):
        resolve("someone/pinned@v2")


def pinned(folder: Path, source: Path, base: str, revision: object) -> Path:
    """An adapter that was trained on a revision of a base."""
    copied = copy(source, folder)
    edit(copied / "adapter_config.json", base_model_name_or_path=base, revision=revision)
    return copied


def test_the_revision_that_an_adapter_names_is_used(hub: Path, base: Path, adapter: Path, tmp_path: Path) -> None:
    """Whether or not the caller names the base."""
    other = tiny.make_base(tmp_path / "other", seed=3)
    make_hub_cache(hub, {"someone/moving": base, "someone/moving@v1": other})
    folder = pinned(tmp_path / "pinned", adapter, "someone/moving", "v1")
    expected = vectors(other, adapter)
    assert np.abs(expected - vectors(base, adapter)).max() > 1e-2
    for model, adapters in ((folder, []), ("someone/moving", [folder]), ("someone/moving@v1", [folder])):
        np.testing.assert_array_equal(vectors(model, *adapters), expected)
    commit = resolve("someone/moving@v1").revision
    assert load(str(folder), dtype="float32").provenance[0]["revision"] == commit
    edit(folder / "adapter_config.json", revision="v9")
    with pytest.raises(SourceError, match="someone/moving@v9 is not in the local Hub cache"):
        load(str(folder))
    edit(folder / "adapter_config.json", revision=9)
    with pytest.raises(SourceError, match="has revision 9, which must be text"):
        load(str(folder))


def test_an_explicit_revision_wins_with_a_warning(
    hub: Path, base: Path, adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tiny.make_base(tmp_path / "other", seed=3)
    make_hub_cache(hub, {"someone/explicit": base, "someone/explicit@v1": other})
    folder = pinned(tmp_path / "pinned", adapter, "someone/explicit", "v2")
    np.testing.assert_array_equal(vectors("someone/explicit@v1", folder), vectors(other, adapter))
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"adapter {folder} was trained on revision v2 of someone/explicit; v1 is used, since you named it"
    ]


def test_adapters_of_different_revisions_are_refused(hub: Path, base: Path, adapter: Path, tmp_path: Path) -> None:
    make_hub_cache(hub, {"someone/two": base})
    one, other = (pinned(tmp_path / name, adapter, "someone/two", name) for name in ("v1", "v2"))
    for model, adapters in (("someone/two", [one, other]), (one, [other])):
        with pytest.raises(SourceError, match=r"different revisions of someone/two \(v[12] and v[12]\): set the model"):
            load(str(model), [str(adapter) for adapter in adapters])


def test_a_folder_with_an_adapter_and_weights_must_be_named_as_an_adapter(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    folder = copy(adapter, tmp_path / "both")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(base / name, folder)
    with pytest.raises(SourceError, match=r"both an adapter and a model's weights \(model.safetensors\)"):
        load(str(folder))
    np.testing.assert_array_equal(vectors(base, folder), vectors(base, adapter))


def test_the_callers_settings_override_those_of_the_sources(base: Path, adapter: Path, tmp_path: Path) -> None:
    tuned = copy(adapter, tmp_path / "tuned")
    (tuned / "llm2vec_config.json").write_text(
        '{"pooling_mode": "weighted_mean", "max_length": 64, "doc_max_length": 32}'
    )
    encoder = load(str(tuned), dtype="float32")
    assert (encoder.pooling, encoder.max_length, encoder.tokenization.doc_max_length) == ("weighted_mean", 64, 32)
    assert load(str(tuned), dtype="float32", pooling="mean", max_length=128).describe()["max_length"] == 128


def test_bin_weights_are_read_and_code_in_pickles_is_refused(base: Path, tmp_path: Path) -> None:
    folder = copy(base, tmp_path / "bin")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    np.testing.assert_array_equal(vectors(folder), vectors(base))

    trap = tmp_path / "trap"

    class Payload:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return Path.touch, (trap,)  # type: ignore[return-value]

    torch.save({"model.norm.weight": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError):
        load(str(folder))
    assert not trap.exists()


def test_remote_code_is_never_run(base: Path, tmp_path: Path) -> None:
    folder = copy(base, tmp_path / "code")
    trap = tmp_path / "trap"
    (folder / "modeling_trap.py").write_text(f"open({str(trap)!r}, 'w')\nclass Model: pass\nclass Config: pass\n")
    edit(folder / "config.json", auto_map={"AutoModel": "modeling_trap.Model", "AutoConfig": "modeling_trap.Config"})
    np.testing.assert_array_equal(vectors(folder), vectors(base))
    edit(folder / "config.json", model_type="trap")
    with pytest.raises(UnsupportedModelError, match="of type trap"):
        load(str(folder))
    assert not trap.exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def scale(path: Path, part: str, factor: float) -> None:
    save_file({k: v * factor if part in k else v for k, v in load_file(path).items()}, path, {"format": "pt"})


BASE_FAULTS: dict[str, tuple[Callable[[Path], object], type[ModelError], str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), SourceError, "has no weights"),
    "truncated": (lambda f: truncate(f / "model.safetensors"), SourceError, "damaged or incomplete"),
    "garbled": (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 999), SourceError, "damaged or incomplete"),
    "config no json": (lambda f: (f / "config.json").write_text("{"), SourceError, "config.json of .* is damaged"),
    "config of another shape": (
        lambda f: edit(f / "config.json", hidden_size=64, head_dim=16),
        SourceError,
        "do not fit",
    ),
    "more layers than weights": (
        lambda f: edit(f / "config.json", num_hidden_layers=3),
        SourceError,
        "lack 9 tensors of LlamaModel, first layers.2",
    ),
    "no tokenizer": (
        lambda f: [p.unlink() for p in f.glob("token*")] and None,
        SourceError,
        "tokenizer of .* has no vocabulary",
    ),
    "tokenizer garbled": (lambda f: (f / "tokenizer.json").write_text("{}"), SourceError, "tokenizer"),
    "unknown architecture": (lambda f: edit(f / "config.json", model_type="martian"), UnsupportedModelError, "martian"),
    "encoder architecture": (lambda f: edit(f / "config.json", model_type="t5"), ModelError, "."),
    "NaN weights": (lambda f: scale(f / "model.safetensors", "norm", float("nan")), ModelError, "NaN"),
    "no config": (lambda f: (f / "config.json").unlink(), SourceError, "is not a model"),
    "too few positions": (
        lambda f: edit(f / "config.json", max_position_embeddings=256),
        ModelError,
        "exceeds the 256 positions",
    ),
}


@pytest.mark.parametrize("fault", BASE_FAULTS)
@pytest.mark.filterwarnings("ignore")
def test_a_bad_base_is_refused_with_its_name(fault: str, base: Path, tmp_path: Path) -> None:
    spoil, error, reason = BASE_FAULTS[fault]
    folder = copy(base, tmp_path / "bad-base")
    spoil(folder)
    with pytest.raises(error, match=reason) as refused:
        load(str(folder), dtype="float32")
    assert "\n" not in str(refused.value)


ADAPTER_FAULTS: dict[str, tuple[Callable[[Path], object], type[ModelError], str]] = {
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), SourceError, "has no weights"),
    "truncated": (lambda f: truncate(f / "adapter_model.safetensors"), SourceError, "damaged"),
    "no way in": (lambda f: scale(f / "adapter_model.safetensors", "lora_A", 0), AdapterError, "has no effect"),
    "no strength": (lambda f: edit(f / "adapter_config.json", lora_alpha=0), AdapterError, "has no effect"),
    "its own base": (
        lambda f: edit(f / "adapter_config.json", base_model_name_or_path=str(f)),
        SourceError,
        "names itself as its base",
    ),
    "settings of another kind": (
        lambda f: (f / "llm2vec_config.json").write_text('{"max_length": "512"}'),
        SourceError,
        "max_length must be",
    ),
    "settings of no sense": (
        lambda f: (f / "llm2vec_config.json").write_text('{"doc_max_length": 0}'),
        SourceError,
        "doc_max_length must be",
    ),
    "settings without a meaning": (
        lambda f: (f / "llm2vec_config.json").write_text('{"poolingmode": "mean", "max_length": null}'),
        SourceError,
        "llm2vec_config.json of .* sets poolingmode, which is unknown",
    ),
    "untrained": (lambda f: scale(f / "adapter_model.safetensors", "lora_B", 0), AdapterError, "has no effect"),
    "NaN": (lambda f: scale(f / "adapter_model.safetensors", "lora_A", float("inf")), AdapterError, "NaN or infinity"),
    "a key too few": (
        lambda f: save_file(
            dict(list(load_file(f / "adapter_model.safetensors").items())[1:]), f / "adapter_model.safetensors"
        ),
        AdapterError,
        "lacks base_model.model.layers.0",
    ),
    "other modules": (
        lambda f: edit(f / "adapter_config.json", target_modules=["query_key_value"]),
        AdapterError,
        "does not fit",
    ),
    "config no json": (lambda f: (f / "adapter_config.json").write_text("["), SourceError, "is damaged"),
    "no base named": (
        lambda f: edit(f / "adapter_config.json", base_model_name_or_path=None),
        SourceError,
        "does not name its base model",
    ),
    "base missing": (
        lambda f: edit(f / "adapter_config.json", base_model_name_or_path="no/where"),
        SourceError,
        "no/where is not in",
    ),
}


@pytest.mark.parametrize("fault", ADAPTER_FAULTS)
def test_a_bad_adapter_is_refused_with_its_name(fault: str, adapter: Path, tmp_path: Path) -> None:
    spoil, error, reason = ADAPTER_FAULTS[fault]
    folder = copy(adapter, tmp_path / "bad-adapter")
    spoil(folder)
    with pytest.raises(error, match=reason) as refused:
        load(str(folder), dtype="float32")
    assert "\n" not in str(refused.value)


def test_an_adapter_with_a_task_type_is_accepted(base: Path, adapter: Path, tmp_path: Path) -> None:
    folder = copy(adapter, tmp_path / "task")
    edit(folder / "adapter_config.json", task_type="CAUSAL_LM")
    (folder / "llm2vec_config.json").write_text('{"max_length": null}')
    np.testing.assert_array_equal(vectors(base, folder), vectors(base, adapter))


def test_an_unavailable_device_is_named(base: Path) -> None:
    for device, reason in (
        ("abacus", "device abacus is unknown to torch"),
        ("cuda:7", "device cuda:7 is not available"),
    ):
        with pytest.raises(ModelError, match=reason):
            load(str(base), device=device)


def test_int8_on_a_cpu_without_its_instructions_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(UnsupportedModelError, match="VNNI"):
        load(str(base), dtype="int8")


def test_an_adapter_for_another_shape_is_refused(base: Path, tmp_path: Path) -> None:
    other = tiny.make_base(tmp_path / "other", hidden_size=64, head_dim=16)
    with pytest.raises(AdapterError, match="has shape"):
        load(str(base), [str(tiny.make_adapter(tmp_path / "misfit", other))], dtype="float32")


def test_an_adapter_trained_on_the_causal_lm_is_accepted(base: Path, adapter: Path, tmp_path: Path) -> None:
    folder = copy(adapter, tmp_path / "causal")
    path = folder / "adapter_model.safetensors"
    save_file({k.replace("base_model.model.", "base_model.model.model."): v for k, v in load_file(path).items()}, path)
    np.testing.assert_array_equal(vectors(base, folder), vectors(base, adapter))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("./nowhere", "is not a local folder, a published short name or a Hub id"),
        ("mistral-70b", "is not a local folder, a published short name or a Hub id"),
        ("a/b/c", "is not a local folder"),
        ("someone/something", "not in the local Hub cache and the Hub cannot be reached"),
        ("someone/some thing", "not on the Hub"),
    ],
)
def test_a_missing_source_is_named(name: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason) as refused:
        load(name)
    assert name in str(refused.value)


def test_a_base_is_not_accepted_as_an_adapter(base: Path) -> None:
    with pytest.raises(SourceError, match="is not an adapter"):
        load(str(base), [str(base)])


def test_beginning_token_pooling_needs_a_beginning_token() -> None:
    with pytest.raises(ModelError, match="bos_token"):
        load("Qwen/Qwen2-1.5B-Instruct", dtype="float32", pooling="bos_token")


def test_the_probe_rejects_causal_attention(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe on transformers' own causal attention, to which a model could silently fall back."""
    from l2v.models import probe, verify

    model = AutoModelForCausalLM.from_pretrained(base).model
    monkeypatch.setattr(
        probe, "hidden_states", lambda model, batch, **_: model(batch.input_ids, use_cache=False).last_hidden_state[0]
    )
    with pytest.raises(UnsupportedModelError, match="runs causally"):
        verify.verify(model)


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "modernbert", "eurobert"])
def test_encoders_are_refused(model_type: str, attention: Attention, tmp_path: Path) -> None:
    """Packed attention would run them causally, and RoBERTa counts positions from another number."""
    AutoModel.from_config(AutoConfig.for_model(model_type, **tiny.SHAPE)).save_pretrained(tmp_path)
    tiny.make_tokenizer(tmp_path)
    with pytest.raises(UnsupportedModelError, match=rf"\({model_type}\) is not a text decoder"):
        load(str(tmp_path), dtype="float32", attention=attention)


def test_llama_4_is_refused(tmp_path: Path) -> None:
    """Its attention depends on the place in the batch, and attends within chunks."""
    shape = {"num_local_experts": 2, "intermediate_size_mlp": 64, "attention_chunk_size": 32}
    tuned = tiny.make_base(tmp_path / "tuned", "llama4_text", **shape)
    with pytest.raises(UnsupportedModelError, match="position in the batch"):
        load(str(tuned), dtype="float32")
    chunked = tiny.make_base(tmp_path / "chunked", "llama4_text", **shape, attn_temperature_tuning=False)
    with pytest.raises(UnsupportedModelError, match="set max_length to at most 32"):
        load(str(chunked), dtype="float32")


def test_a_window_that_attention_does_not_get_is_refused(tmp_path: Path) -> None:
    shape = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32, "max_window_layers": 2}
    base = tiny.make_base(tmp_path, "qwen2_moe", **shape, use_sliding_window=True, sliding_window=64)
    ours: dict[str, Any] = {"dtype": "float32", "semantics": "sentence-transformers", "attention": "causal"}
    assert load(str(base), **ours, max_length=64).max_length == 64
    with pytest.raises(UnsupportedModelError, match=r"by a mask.* set max_length to at most 64"):
        load(str(base), **ours, max_length=65)


def test_longrope_limits_max_length(tmp_path: Path) -> None:
    """Longrope uses other frequencies for the whole batch if one of its texts is long."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 10_000.0}
    rope["original_max_position_embeddings"] = 64
    base = tiny.make_base(tmp_path, "phi3", rope_parameters=rope, original_max_position_embeddings=64)
    assert load(str(base), dtype="float32", max_length=64, doc_max_length=64).max_length == 64
    with pytest.raises(UnsupportedModelError, match=r"longrope.* must not exceed 64"):
        load(str(base), dtype="float32", max_length=65, doc_max_length=64)
    nested = read_config(resolve(str(base)))
    nested.rope_parameters = {"full_attention": rope, "sliding_attention": {"rope_type": "default"}}
    declaration = load(str(base), dtype="float32", max_length=64, doc_max_length=64).declaration
    check_max_length(nested, declaration)
    with pytest.raises(UnsupportedModelError, match=r"longrope.* must not exceed 64"):
        check_max_length(nested, replace(declaration, max_length=Declared(65)))
