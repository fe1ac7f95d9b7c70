"""Loads a stack with sentence-transformers 6, such that it computes what its publisher intends."""

import json
import shutil
from pathlib import Path

from family import Family
from golden import load, use_tokenizer_json
from layout import OLD, Json, write_json
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

PLAIN = "The published folder, as it stands"
REMOTE = (
    "The publisher's code was not run. The plain class {model} computed it, under the bidirectional mask that the "
    "repository declares, from a copy of the folder whose config.json names a type that transformers knows"
)


def add_bos_and_eos(model: SentenceTransformer, golden_ids: tuple[int, int]) -> None:
    """Apply `add_eos_token: true`, which transformers 5 ignores if there is a tokenizer.json."""
    tokenizer = model.tokenizer
    assert tokenizer("a")["input_ids"][-1] != golden_ids[1], "transformers honours the flag again: drop this function"
    tokenizer.add_bos_token = True
    tokenizer.add_eos_token = True
    ids = tokenizer("a")["input_ids"]
    assert (ids[0], ids[-1]) == golden_ids, ids


def declare_bare(folder: Path) -> None:
    """Write sentence-transformers' files for `pooling: avg` in config.json: the normalised mean."""
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    steps = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    modules = [{"idx": i, "name": str(i), "path": path, "type": OLD + step} for i, (step, path) in enumerate(steps)]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": width, "pooling_mode": "mean"})


def split_head(folder: Path, family: Family) -> None:
    """Turn the projection of every state into a Dense module after the mean. Without a bias, the two are equal."""
    weights = load_file(folder / "model.safetensors")
    head = weights.pop("linear.weight").float()
    save_file(
        {name.removeprefix(family.prefix): weight for name, weight in weights.items()}, folder / "model.safetensors"
    )
    outputs, inputs = head.shape
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    write_json(folder / "1_Pooling" / "config.json", pooling | {"word_embedding_dimension": inputs})
    modules = json.loads((folder / "modules.json").read_text())
    dense = {"name": "head", "path": "head_Dense", "type": OLD + "Dense"}
    modules[2:2] = [dense]
    write_json(folder / "modules.json", [{"idx": index} | module for index, module in enumerate(modules)])
    config: Json = {"in_features": inputs, "out_features": outputs, "bias": False}
    config["activation_function"] = "torch.nn.modules.linear.Identity"
    write_json(folder / "head_Dense" / "config.json", config)
    save_file({"linear.weight": head.contiguous()}, folder / "head_Dense" / "model.safetensors")


def drop_quantizer(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    write_json(folder / "modules.json", [module for module in modules if module["type"].startswith(OLD)])


def load_reference(stack: Path, family: Family, scratch: Path) -> tuple[SentenceTransformer, str]:
    """The model that computes the golden, and how it was loaded. `scratch` is an empty folder for a changed copy."""
    if not family.remote_code:
        model = load(stack)
        if use_tokenizer_json(model, stack):
            return model, PLAIN + ", with tokenizer.json's own pipeline, which transformers 5 replaces by another"
        if not family.eos_in_config_only:
            return model, PLAIN
        files = family.tokenizer()
        add_bos_and_eos(model, (files.bos_id, files.eos_id))
        return model, PLAIN + ", but for add_eos_token, which transformers 5 drops and which was set after loading"
    copy = scratch / family.name
    shutil.copytree(stack, copy)
    config = json.loads((copy / "config.json").read_text())
    write_json(copy / "config.json", family.native_config(config))
    source = REMOTE.format(model=family.model.__name__)
    if family.declaration is None:
        declare_bare(copy)
        source += "; the modules are what `pooling: avg` means"
    elif family.declaration.quantizer:
        drop_quantizer(copy)
        source += "; FlexibleQuantizer was left out, so that the vector is the float one"
    if family.head:
        split_head(copy, family)
        source += "; the projection of every state became a Dense module after the mean, which is the same"
    return load(copy), source
