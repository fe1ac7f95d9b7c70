"""Every ready-made config can be read, and one of each kind builds a trainer, on a tiny model instead of its own."""

import json
import math
import os
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModel, LlamaConfig, PreTrainedConfig, Qwen3Config, TrainingArguments

from l2v.models.published import STACKS
from l2v.models.sources import Source
from l2v.training import card, command, contrastive, mntp
from l2v.training.arguments import arguments
from l2v.training.config_file import CONFIGS
from l2v.training.errors import TrainingError
from l2v.training.memory import estimate
from l2v.training.recipes import Mntp, Recipe, Simcse, Supervised

READY = sorted(CONFIGS.glob("*/*.yaml"))
# The shapes of small models, for which every stage fits a GPU of 24 GB.
SMALL: dict[str, PreTrainedConfig] = {
    "qwen3-0.6b": Qwen3Config(
        vocab_size=151_936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, tie_word_embeddings=True, architectures=["Qwen3ForCausalLM"],
    ),
    "llama-3.2-1b": LlamaConfig(
        vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, head_dim=64, tie_word_embeddings=True, architectures=["LlamaForCausalLM"],
    ),
}  # fmt: skip
STAGES: dict[str, type[Recipe]] = {"mntp": Mntp, "simcse": Simcse, "supervised": Supervised}


def test_each_model_has_a_config_for_each_stage() -> None:
    models = {"sheared-llama-1.3b", "llama-2-7b", "mistral-7b", "llama-3-8b", "llama-3.1-8b", *SMALL}
    assert {(path.parent.name, path.stem) for path in READY} == {(stage, name) for stage in STAGES for name in models}


def test_dtype_auto_depends_on_the_training_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = Mntp(out=tmp_path, data=("texts",), model="m")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for capability, dtype in ((8, "bfloat16"), (7, "float32")):  # Ampere, and the generation before it
        properties = SimpleNamespace(major=capability)
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda device, found=properties: found)
        assert recipe.base_dtype == dtype
    assert recipe.model_copy(update={"device": "cpu"}).base_dtype == "auto"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert recipe.base_dtype == "auto"


def read(config: Path, out: Path) -> Recipe:
    stage = config.parent.name
    more = {"data": ("pairs",)} if stage == "supervised" else {}
    return STAGES[stage](out=out, config=Path(f"{stage}/{config.stem}"), **more)


@pytest.mark.parametrize("config", READY, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_config_has_the_papers_values(config: Path, tmp_path: Path) -> None:
    stage, recipe = config.parent.name, read(config, tmp_path)
    published = STACKS[f"{config.stem}-mntp"]
    assert recipe.adapters == (() if stage == "mntp" else (published.model,))
    assert (recipe.lora_r, recipe.lora_alpha, recipe.lora_dropout, len(recipe.lora_targets)) == (16, 32, 0.05, 7)
    assert recipe.steps == 1000
    mistral = config.stem == "mistral-7b"
    if isinstance(recipe, Mntp):
        assert (recipe.batch_size, recipe.max_length, recipe.learning_rate) == (32, 512, 5e-5)
        assert (recipe.masking, recipe.collator) == ((0.8, "all_mask") if mistral else (0.2, "default"))
    elif isinstance(recipe, Simcse):
        assert (recipe.batch_size, recipe.max_length, recipe.learning_rate) == (128, 128, 3e-5)
        assert (recipe.scale, recipe.dropout) == (20, 0.3)
    elif isinstance(recipe, Supervised):
        assert (recipe.batch_size, recipe.max_length, recipe.learning_rate) == (512, 512, 2e-4)
        assert (recipe.scale, recipe.warmup_steps, recipe.hard_negatives) == (50, 300, 1)


def write_headers(config: PreTrainedConfig, folder: Path) -> Source:
    """A checkpoint of the model's shapes whose weights are a hole in the file."""
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: list(weight.shape) for name, weight in AutoModel.from_config(config).state_dict().items()}
    entries, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return Source(str(folder), folder)


@pytest.mark.parametrize("name", SMALL)
def test_small_models_fit_a_gpu_of_24_gb(name: str, tmp_path: Path) -> None:
    base = write_headers(SMALL[name], tmp_path)
    for stage in STAGES:
        needed = estimate(read(CONFIGS / stage / f"{name}.yaml", tmp_path / "out"), base, 1, sharded=False)
        assert 1e9 < needed < 22e9, stage  # the CUDA context and the allocator take the rest


def test_the_model_is_required_and_trackers_must_be_installed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model: pass a base model with --model"):
        Mntp(out=tmp_path, data=("texts",))
    recipe = Mntp(out=tmp_path, data=("texts",), model="m", device="cpu", report_to=("nobody",))
    with pytest.raises(TrainingError, match="--report-to nobody: the tracker is not installed"):
        arguments(recipe, TrainingArguments)
    assert "report_to" not in recipe.to_dict()


def test_openmp_waits_as_in_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    trainer = SimpleNamespace(run=lambda: seen.append(os.environ["OMP_WAIT_POLICY"]))
    monkeypatch.setattr(command, "import_module", lambda name: SimpleNamespace(build=lambda recipe: trainer))
    command.run(Mntp(out=tmp_path, data=("texts",), model="m"))
    assert seen == ["PASSIVE"]


def test_the_card_names_the_base_in_its_front_matter(tmp_path: Path) -> None:
    recipe = Mntp(out=tmp_path / "mine", data=("texts",), model="owner/base")
    for base, named in (("owner/base", "owner/base"), ("/tmp/base", None)):  # noqa: S108
        student: Any = SimpleNamespace(parent="../mntp", encoder=SimpleNamespace(base=base))
        card.write(recipe, student, [(1, 2.0)], {"texts": "0"}, tmp_path)
        _, front, text = (tmp_path / "README.md").read_text().split("---\n", 2)
        found = yaml.safe_load(front)
        assert found.get("base_model") == named
        assert (found["library_name"], found["tags"]) == ("peft", ["llm2vec", "lora", "mntp"])
        assert f"of the base model `{base}`" in text


@pytest.mark.parametrize("name", ["mntp/mistral-7b", "mntp/llama-2-7b", "simcse/mistral-7b", "supervised/mistral-7b"])
def test_a_config_builds_its_trainer(
    name: str, base: Path, texts: Path, lines: Path, pairs: Path, tmp_path: Path
) -> None:
    config = CONFIGS / f"{name}.yaml"
    stage, recipe = config.parent.name, read(config, tmp_path)
    data = {"mntp": texts, "simcse": lines, "supervised": pairs}[stage]
    change = {"model": str(base), "adapters": (), "data": (str(data),), "out": tmp_path / "out", "batch_size": 8}
    tiny = recipe.model_copy(update=change | {"device": "cpu", "max_length": 64, "config": None})
    trainer = (mntp if stage == "mntp" else contrastive).build(tiny)  # type: ignore[arg-type]
    assert trainer.args.max_steps == 1000
    assert trainer.args.learning_rate == recipe.learning_rate


class OnFourGpus(TrainingArguments):
    """The arguments of a single process on a machine with four GPUs."""

    @cached_property
    def _setup_devices(self) -> torch.device:
        device: torch.device = TrainingArguments._setup_devices.func(self)
        self._n_gpu = 4
        return device


def test_one_process_drives_one_gpu(tmp_path: Path) -> None:
    """With more GPUs per process, the trainer would use nn.DataParallel, which splits packed rows at any token."""
    args = arguments(Mntp(out=tmp_path, data=("texts",), device="cpu", model="m"), OnFourGpus)
    assert (args.n_gpu, args.train_batch_size) == (1, 32)


def test_an_invalid_config_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for content, reason in (
        ("a: [1", "is not valid YAML"),
        ("- 1", "must be a UTF-8 file of settings"),
        ("nope: 3", "sets nope"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=reason):
            Mntp(out=tmp_path, config=file, data=("texts",), model="m")


def test_settings_are_validated(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="select GPUs with CUDA_VISIBLE_DEVICES"):
        Mntp(out=tmp_path, data=("texts",), model="m", device="cuda:1")
    with pytest.raises(ValueError, match="save_steps 25 must be a multiple of log_steps 10"):
        Mntp(out=tmp_path, data=("texts",), save_steps=25, model="m")
    home = Mntp(out=tmp_path, data=("~/texts", "owner/name"), model="m")
    assert home.data == (str(Path.home() / "texts"), "owner/name")


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: m\nsteps: 7\nlearning_rate: 0.5\ndata: a.txt\n")
    recipe = Simcse(out=tmp_path, config=file, steps=8)
    assert (recipe.steps, recipe.learning_rate, recipe.data) == (8, 0.5, ("a.txt",))


def test_unknown_settings_and_configs_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("stpes: 7\ndata: a.txt\n")
    with pytest.raises(ValueError, match="sets stpes, which is not a setting of Simcse"):
        Simcse(out=tmp_path, config=file)
    with pytest.raises(ValueError, match="neither a file nor a ready-made config"):
        Simcse(out=tmp_path, config=Path("mntp/gpt-9"))
