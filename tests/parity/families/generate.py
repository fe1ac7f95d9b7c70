"""Generates tiny checkpoints in the layouts of published embedding models, and their correct vectors.

    python3 -m venv .venv-families
    .venv-families/bin/pip install -r tests/parity/families/requirements.txt
    .venv-families/bin/python tests/parity/families/generate.py

It takes a minute on a CPU, needs no network, and rewrites `stacks/` and `goldens/` next to this file from fixed seeds.
`--only NAME` regenerates one family, `--goldens-only` keeps the existing stacks. `golden.py` describes the goldens.
"""

import argparse
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

# Set here because they are read on import.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import bidirectional
import published
import saved
import torch
import variants
from checkpoint import write_stack
from family import Family
from golden import check_ids, load, make_golden, write_golden
from llm2vec_stacks import ADAPTED, Adapted, make_adapted_golden, save_adapted
from reference import load_reference

HERE = Path(__file__).parent
FAMILIES = (*published.FAMILIES, *bidirectional.FAMILIES, *variants.FAMILIES)


def make_stack(name: str, write: Callable[[Path], None], *, keep: bool) -> Path:
    print(name)
    stack = HERE / "stacks" / name
    if not keep:
        shutil.rmtree(stack, ignore_errors=True)
        write(stack)
    return stack


def make_family(family: Family, *, keep_stack: bool) -> None:
    stack = make_stack(family.name, lambda folder: write_stack(folder, family), keep=keep_stack)
    with tempfile.TemporaryDirectory(prefix="l2v-families-") as scratch:
        model, source = load_reference(stack, family, Path(scratch))
        prompts = family.declaration.prompts if family.declaration else {}
        golden = make_golden(model, family.attention, prompts, source)
    if not (family.declaration and family.declaration.lower_case):
        eos = family.tokenizer().eos_id if family.eos_in_config_only else None
        check_ids(stack, golden["rows"], model.max_seq_length, eos)
    golden = {"repositories": list(family.repositories)} | golden
    write_golden(HERE / "goldens" / f"{family.name}.json", golden)


def make_saved(stack: saved.Saved, *, keep_stack: bool) -> None:
    folder = make_stack(stack.name, lambda folder: saved.save_stack(folder, stack), keep=keep_stack)
    family = stack.family()
    prompts = family.declaration.prompts
    model = load(folder)
    golden = make_golden(model, family.attention, prompts, "The folder as sentence-transformers saved it")
    if not stack.chat:
        check_ids(folder, golden["rows"], model.max_seq_length)
    write_golden(HERE / "goldens" / f"{stack.name}.json", {"repositories": []} | golden)


def make_adapted(adapted: Adapted, *, keep_stack: bool) -> None:
    root = make_stack(adapted.name, lambda folder: save_adapted(folder, adapted), keep=keep_stack)
    write_golden(HERE / "goldens" / f"{adapted.name}.json", make_adapted_golden(root, adapted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goldens-only", action="store_true", help="keep the stacks that are there")
    parser.add_argument("--only", help="the one family to make")
    options = parser.parse_args()
    # A single thread always sums in the same order.
    torch.set_num_threads(1)
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    for family in FAMILIES:
        if options.only in (None, family.name):
            make_family(family, keep_stack=options.goldens_only)
    for stack in saved.SAVED:
        if options.only in (None, stack.name):
            make_saved(stack, keep_stack=options.goldens_only)
    for adapted in ADAPTED:
        if options.only in (None, adapted.name):
            make_adapted(adapted, keep_stack=options.goldens_only)


if __name__ == "__main__":
    main()
