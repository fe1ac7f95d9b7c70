"""LoRA modules beside one base: each row equals that of its merged stack, whatever else is in the batch."""

import json
import pickle
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoHaConfig, LoraConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from l2v.models import Encoder, Encoding, Input, ModelError, load
from l2v.models.compilation import compile_layers
from l2v.models.export import export
from l2v.models.lora import products
from l2v.models.lora.adapters import Adapters
from l2v.models.quantization.int8 import available
from tests import tiny
from tests.models.test_adapters import CARRIED, edit, lora, write
from tests.models.test_attention import cosines

pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = [Input("the cat sits on the mat " * (1 + n % 5), "find:" * (n % 2)) for n in range(16)]
# What differs between the modules: rank, scale, layers.
CONFIGS: dict[str, LoraConfig] = {
    "all": lora(r=4, target_modules=tiny.PROJECTIONS),
    "wide": lora(r=16, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "up_proj"]),
    "patterns": lora(
        target_modules=["v_proj", "gate_proj", "down_proj"],
        rank_pattern={r"layers\.0\.self_attn\.v_proj": 2},
        alpha_pattern={r"layers\.1\.mlp\.down_proj": 3},
    ),
}


@pytest.fixture(scope="module")
def modules(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("modules")
    return {name: str(write(folder / name, base, config, AutoModel)) for name, config in CONFIGS.items()}


@pytest.fixture(scope="module")
def encoder(base: Path, modules: dict[str, str]) -> Encoder:
    return load(str(base), dtype="float32", lora_modules=modules)


def mixed(encoder: Encoder, texts: Sequence[Input] = TEXTS) -> list[Encoding]:
    """Each text for the next of the stack and its modules."""
    chosen = [encoder, *encoder.adapters.modules.values()]
    return [chosen[n % len(chosen)].tokenization([text])[0] for n, text in enumerate(texts)]


def merged(base: Path, modules: dict[str, str], **settings: Any) -> NDArray[np.float32]:
    """The same with a merged stack for each."""
    stacks = [load(str(base), adapters, **settings) for adapters in ([], *([source] for source in modules.values()))]
    return np.stack([stacks[n % len(stacks)].encode([text])[0] for n, text in enumerate(TEXTS)])


@pytest.mark.parametrize("prepack", [False, True])
def test_rows_equal_their_merged_stacks(base: Path, modules: dict[str, str], prepack: bool) -> None:
    encoder = load(str(base), dtype="float32", lora_modules=modules, prepack=prepack)
    vectors = np.stack(encoder.forward(mixed(encoder)))
    np.testing.assert_allclose(vectors, merged(base, modules, dtype="float32"), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.999), ("float16", 0.9999), ("int8", 0.995)])
def test_rows_in_lower_precision(base: Path, modules: dict[str, str], dtype: Any, least: float) -> None:
    """Alone, and in a batch that is cut into blocks of tokens."""
    if dtype == "int8" and not available(torch.device("cpu")):
        pytest.skip("this CPU has no VNNI")
    encoder, expected = load(str(base), dtype=dtype, lora_modules=modules), merged(base, modules, dtype="float32")
    rows = mixed(encoder)
    assert cosines(np.stack(encoder.forward(rows)), expected).min() >= least
    assert cosines(np.concatenate([encoder.forward([row]) for row in rows]), expected).min() >= least


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_grouped_products_equal_those_by_slice(
    base: Path, modules: dict[str, str], dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of GPUs, whose operation has a kernel for the CPU."""
    expected = np.stack((encoder := load(str(base), dtype=dtype, lora_modules=modules)).forward(mixed(encoder)))
    monkeypatch.setattr(Adapters, "_grouped", lambda self: True)
    encoder = load(str(base), dtype=dtype, lora_modules=modules)
    rows = mixed(encoder)
    given = np.stack(encoder.forward(rows))
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5 if dtype == "float32" else 0.1)
    assert cosines(given, expected).min() > 0.9995
    encoder.adapters.release(encoder.adapters.remove("all").id)
    wide = [row for row in rows if row.adapter in (0, encoder.adapters.modules["wide"].id)]
    np.testing.assert_array_equal(encoder.forward(wide), encoder.forward(wide))
    with pytest.raises(ModelError, match="is not loaded"):
        encoder.forward(rows)


def test_neighbours_of_other_modules_change_nothing(encoder: Encoder) -> None:
    one, others = encoder.adapters.modules["all"].tokenization(TEXTS[:1]), encoder.tokenization(TEXTS[1:5])
    packs = [[*one, *(replace(row, adapter=id_) for row in others)] for id_ in (0, 1, 2, 3)]
    vectors = [encoder.forward(pack)[0] for pack in packs]
    for other in (*vectors[1:], *encoder.forward(one)):
        np.testing.assert_allclose(other, vectors[0], rtol=0, atol=1e-6)


def test_token_states_follow_the_module(encoder: Encoder) -> None:
    rows = [replace(row, pooled=0) for row in mixed(encoder)]
    alone = [encoder.forward([row])[0] for row in rows]
    for given, expected, row in zip(encoder.forward(rows), alone, rows, strict=True):
        assert given.shape == (len(row), 32)
        np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5)


def test_each_module_has_its_pooling_and_template(base: Path, modules: dict[str, str], tmp_path: Path) -> None:
    own = {"pooling_mode": "eos_token", "max_length": 20, "doc_max_length": 12, "template": "inst"}
    folder = tmp_path / "own"
    folder.mkdir()
    for file in Path(modules["all"]).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "llm2vec_config.json").write_text(json.dumps(own))
    encoder = load(str(base), dtype="float32", lora_modules={"plain": modules["all"], "own": str(folder)})
    stack = load(str(base), [str(folder)], dtype="float32")
    module = encoder.adapters.modules["own"]
    assert module.describe()["pooling"] == "eos_token"
    assert module.tokenization(TEXTS) == [replace(row, adapter=module.id) for row in stack.tokenize(TEXTS)]
    rows = [*encoder.tokenize(TEXTS), *module.tokenization(TEXTS)]
    np.testing.assert_allclose(encoder.forward(rows)[len(TEXTS) :], stack.encode(TEXTS), rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.forward(rows)[: len(TEXTS)], encoder.encode(TEXTS), rtol=0, atol=1e-5)


def test_a_module_can_be_pickled(encoder: Encoder) -> None:
    module = encoder.adapters.modules["wide"]
    assert pickle.loads(pickle.dumps(module)).tokenization(TEXTS) == module.tokenization(TEXTS)  # noqa: S301


def test_what_is_said_of_modules(encoder: Encoder, modules: dict[str, str]) -> None:
    described = encoder.adapters.describe()
    assert [each["name"] for each in described] == list(modules)
    assert [each["rank"] for each in described] == [4, 16, 4]
    assert [each["layers"] for each in described] == [14, 4, 6]
    assert described[0]["source"] == {"name": "all", "kind": "adapter", "revision": ""}
    assert sum(each["bytes"] for each in described) == encoder.adapters.nbytes
    assert all(
        f"adapter {name}: {name} (for" in evidence
        for name, evidence in zip(modules, encoder.evidence[-3:], strict=True)
    )


def test_what_a_module_leaves_out_is_said(base: Path, modules: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "more"
    shutil.copytree(modules["all"], folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(weights | {"base_model.model.other.weight": torch.ones(2)}, folder / "adapter_model.safetensors")
    encoder = load(str(base), dtype="float32", lora_modules={"more": str(folder)}, ignore_tensors=["*other*"])
    (described,) = encoder.adapters.describe()
    assert [line for line in described["left_out"] if "other" in line and "more" in line]


@pytest.mark.parametrize(
    ("config", "other"),
    [
        ({}, None),
        ({"base_model_name_or_path": "org/{base}"}, None),  # the base in another place
        ({"base_model_name_or_path": "org/other"}, "org/other"),
        ({"base_model_name_or_path": "l2v/demo-base", "revision": "abcdef1"}, "l2v/demo-base@abcdef1"),
    ],
)
def test_a_module_of_another_base_is_served_with_a_warning(
    config: dict[str, str],
    other: str | None,
    base: Path,
    modules: dict[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(modules["all"], folder := tmp_path / "module")
    edit(folder, **{key: value.format(base=base.name) for key, value in config.items()})
    encoder = load(str(base), dtype="float32")
    reader = encoder.adapters._reader
    if "revision" in config:
        encoder.adapters._reader = replace(reader, base=replace(reader.base, name="l2v/demo-base", revision="def"))
    encoder.adapters.add("module", str(folder))
    (described,) = encoder.adapters.describe()
    warnings = [record for record in caplog.records if "was trained on" in record.message]
    assert (described["other_base"], len(warnings)) == (other, int(other is not None))


@pytest.mark.parametrize("tokens", [64, 100, 1023, 3000])
def test_blocks_cover_each_token_of_a_slice_once(tokens: int) -> None:
    for start, stop in ((0, 1), (0, tokens), (tokens - 1, tokens), (7, tokens - 9)):
        covered = []
        for block in products._cut(start, stop, {}, tokens):
            assert 0 <= block.start < block.stop <= tokens
            assert block.stop - block.start in products._BLOCKS
            covered += range(block.start + block.first, block.start + block.last)
        assert covered == list(range(start, stop))


def test_modules_come_and_go_between_batches(base: Path, modules: dict[str, str]) -> None:
    encoder = load(str(base), dtype="float32")
    plain = encoder.forward(rows := encoder.tokenize(TEXTS))
    stop, failures = threading.Event(), []

    def serve() -> None:
        while not stop.is_set():
            if not all(map(np.array_equal, encoder.forward(rows), plain)):
                failures.append("the stack's vectors changed")

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        ids = []
        for _ in range(2):
            for name, source in modules.items():
                module = encoder.adapters.add(name, source)
                ids.append(module.id)
                (vector,) = encoder.forward(row := module.tokenization(TEXTS[:1]))
                assert encoder.adapters.remove(name) == module
                np.testing.assert_array_equal(encoder.forward(row)[0], vector)  # until it is released
                encoder.adapters.release(module.id)
    finally:
        stop.set()
        serving.join()
    assert not failures
    assert ids == list(range(1, 7))
    assert encoder.adapters.nbytes == len(encoder.adapters) == 0
    with pytest.raises(ModelError, match="adapter 6 of a row is not loaded"):
        encoder.forward(row)


def test_values_that_overflow_stay_in_their_rows(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """In either way of multiplying: by slices, and by blocks that reach into other modules' tokens."""
    loaded = encoder.adapters._snapshot.loaded[2]
    first = next(iter(loaded.weights.values()))
    kept = first.a.clone()
    rows = mixed(encoder)
    try:
        first.a.fill_(torch.nan)
        for blocks in (False, True):
            with monkeypatch.context() as patch:
                if blocks:
                    patch.setattr(products, "_compiles_shapes", lambda device, dtype: True)
                vectors = encoder.forward(rows)
            assert [bool(np.isfinite(vector).all()) for vector in vectors] == [row.adapter != 2 for row in rows]
    finally:
        first.a.copy_(kept)


def damage(folder: Path, change: Callable[[torch.Tensor], torch.Tensor], part: str = "lora_A") -> None:
    path = folder / "adapter_model.safetensors"
    save_file({k: change(v) if part in k else v for k, v in load_file(path).items()}, path, {"format": "pt"})


def damage_keys(folder: Path, key: str) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(load_file(path) | {f"base_model.model.{key}": torch.ones(32)}, path, {"format": "pt"})


def empty(folder: Path) -> None:
    save_file({}, folder / "adapter_model.safetensors", {"format": "pt"})


def nan(weight: torch.Tensor) -> torch.Tensor:
    return torch.full_like(weight, torch.nan)


# What the module is made of, what happens to its folder, and what the message names.
REFUSED: dict[str, tuple[Any, Callable[[Path], object], str]] = {
    "another kind": (
        LoHaConfig(r=4, target_modules=["q_proj"]),
        lambda f: None,
        "is of kind LOHA: .* merge it instead",
    ),
    "DoRA": (lora(use_dora=True), lambda f: None, r"is a DoRA adapter \(use_dora\).*merge it instead"),
    "embeddings": (
        lora(target_modules=["q_proj", "embed_tokens"]),
        lambda f: None,
        "changes embeddings .*embed_tokens",
    ),
    "saved whole": (
        lora(modules_to_save=["norm"]),
        lambda f: None,
        r"holds the whole tensor .*norm.weight \(modules_to_save\)",
    ),
    "parameters": (CARRIED["parameters"][0], lambda f: None, "target_parameters"),
    "tokens": (lora(trainable_token_indices=[250]), lambda f: None, "trainable_token_indices"),
    "biases": (lora(bias="lora_only"), lambda f: None, "changes biases"),
    "magnitudes": (
        lora(),
        lambda f: damage_keys(f, "layers.0.self_attn.q_proj.lora_magnitude_vector.weight"),
        r"is a DoRA adapter \(.*lora_magnitude_vector",
    ),
    "PiSSA": (lora(), lambda f: edit(f, init_lora_weights="pissa"), "init_lora_weights pissa"),
    "NaN": (lora(), lambda f: damage(f, nan), "holds NaN or infinity in .*lora_A.weight"),
    "no tensors": (lora(), empty, r"changes nothing in the decoder \(it holds no tensors\)"),
    "an infinite scale": (lora(), lambda f: edit(f, lora_alpha=np.inf), "lora_alpha is Infinity, but must be a number"),
    "no name of a base": (lora(), lambda f: edit(f, base_model_name_or_path=5), "names a base_model_name_or_path that"),
    "another rank": (lora(), lambda f: edit(f, r=8), "has shape"),
    "no effect": (lora(), lambda f: damage(f, torch.zeros_like, "lora_B"), "has no effect"),
    "lost in rounding": (lora(), lambda f: damage(f, lambda w: w * 1e-30), "changes no vector in float32"),
    "overflow": (lora(), lambda f: damage(f, lambda w: w * 1e38), "compute NaN or infinity"),
    "attention": (
        lora(),
        lambda f: (f / "llm2vec_config.json").write_text('{"attention": "causal"}'),
        r"declares attention causal \(llm2vec_config.json\), but .* bidirectional",
    ),
    "no adapter": (lora(), lambda f: (f / "adapter_config.json").unlink(), "is not a model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_applied_is_refused(name: str, encoder: Encoder, base: Path, tmp_path: Path) -> None:
    config, change, message = REFUSED[name]
    folder = write(tmp_path / "module", base, config, AutoModel)
    change(folder)
    before = encoder.adapters._snapshot
    with pytest.raises(ModelError, match=message):
        encoder.adapters.add("bad", str(folder))
    assert encoder.adapters._snapshot is before
    assert np.isfinite(encoder.forward(mixed(encoder))).all()


def test_other_refusals(encoder: Encoder, base: Path, modules: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is already an adapter all"):
        encoder.adapters.add("all", modules["all"])
    with pytest.raises(ModelError, match="is not an adapter"):
        encoder.adapters.add("base", str(base))
    size = encoder.adapters.nbytes
    taken = rf"{size:,} of {size + 9:,} are taken \(max_lora_bytes\): unload another .* higher max_lora_bytes"
    with pytest.raises(ModelError, match=taken):
        encoder.adapters.add("more", modules["all"], max_bytes=size + 9)
    with pytest.raises(ModelError, match="cannot be exported"):
        export(load(str(base), lora_modules={"all": modules["all"]}, prepack=False), tmp_path / "export")
    with pytest.raises(ModelError, match="cannot be compiled"):
        compile_layers(load(str(base), lora_modules={"all": modules["all"]}, prepack=False))


def test_experts_are_refused(tmp_path: Path) -> None:
    base = tiny.make_base(tmp_path / "base", "mixtral", num_local_experts=2)
    encoder = load(str(base), dtype="float32")
    attention = write(tmp_path / "attention", base, lora(target_modules=["q_proj", "o_proj"]), AutoModel)
    module = encoder.adapters.add("attention", str(attention))
    stack = load(str(base), [str(attention)], dtype="float32")
    given = encoder.forward(module.tokenization(TEXTS[:3]))
    np.testing.assert_allclose(given, stack.encode(TEXTS[:3]), rtol=0, atol=1e-4)
    config = lora(target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj"])
    with pytest.raises(ModelError, match="target_parameters"):
        encoder.adapters.add("experts", str(write(tmp_path / "experts", base, config, AutoModel)))


def test_a_module_keeps_the_settings_of_its_tokenizer(base: Path, modules: dict[str, str], tmp_path: Path) -> None:
    """Files with the same vocabulary can differ in the side that is cut, and in special tokens as text."""
    folder = tmp_path / "module"
    shutil.copytree(next(iter(modules.values())), folder)
    tiny.make_tokenizer(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for changes in ({"truncation_side": "left"}, {"split_special_tokens": True}):
        (folder / "tokenizer_config.json").write_text(json.dumps(config | changes))
        encoder = load(str(base), dtype="float32", lora_modules={"own": str(folder)})
        (module,) = encoder.adapters.modules.values()
        merged = load(str(base), [str(folder)], dtype="float32").tokenization
        input_ = Input("</s> " + "ab" * 100, max_tokens=50)
        assert module.tokenization([input_])[0].ids == merged([input_])[0].ids
        assert module.tokenization([input_])[0].ids != encoder.tokenization([input_])[0].ids
