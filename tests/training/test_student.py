"""An adapter that was trained here is served as it was trained, wherever it is taken."""

import json
import shutil
from pathlib import Path

import pytest

from l2v.models import Input, SourceError, load
from l2v.models.sources import resolve
from l2v.models.tokenizer import read_backend, read_tokenizer
from l2v.training import contrastive
from l2v.training.recipes import Simcse
from tests.conftest import PARITY


def test_an_adapter_brings_what_it_was_trained_with(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tokenizer, which transformers rebuilds with other rules, its template, and the way to its base."""
    home = tmp_path / "home"
    shutil.copytree(PARITY / "stacks/sheared-llama/base", home / "base")
    monkeypatch.chdir(home)
    told = {"model": "base", "out": "made/mine", "data": (str(lines),), "template": "inst", "device": "cpu"}
    contrastive.train(Simcse(**told, dtype="float32", batch_size=4, steps=1, learning_rate=1e-2))

    sources = [resolve(name) for name in ("base", "made/mine")]
    base, mine = (read_backend(source, read_tokenizer(source)) for source in sources)
    for text in ("the cat", " the cat", "a </s> b"):
        assert mine.encode(text).ids == base.encode(text).ids

    monkeypatch.chdir(tmp_path)
    home.rename("moved")
    with_base = load("moved/base", ["moved/made/mine"], dtype="float32")
    assert with_base.template == "inst"
    alone = load("moved/made/mine", dtype="float32")
    text = [Input("a </s> b", "Find:")]
    assert (alone.encode(text) == with_base.encode(text)).all()

    # The reference takes the first two alone.
    settings = json.loads(Path("moved/made/mine/llm2vec_config.json").read_text())
    assert settings == {"pooling_mode": "mean", "skip_instruction": True, "template": "inst"}

    shutil.rmtree("moved/base")
    with pytest.raises(SourceError, match=r"adapter moved/made/mine names cannot be had: \.\./\.\./base is neither"):
        load("moved/made/mine")


def test_an_adapter_keeps_the_template_of_a_base_that_it_does_not_name(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The template goes by the base's name, and a folder of that name is recorded by where it is."""
    named = Path("meta-llama/Meta-Llama-3-8B-Instruct")
    shutil.copytree(PARITY / "stacks/llama3-instruct/base", tmp_path / named)
    config = tmp_path / named / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_name_or_path": ""}))
    monkeypatch.chdir(tmp_path)
    told = {"model": str(named), "out": "mine", "data": (str(lines),), "device": "cpu"}
    contrastive.train(Simcse(**told, dtype="float32", batch_size=4, steps=1))
    assert load(str(named), dtype="float32").template == "llama-3-instruct"
    mine = load(str(tmp_path / "mine"), dtype="float32")
    assert (mine.template, mine.base) == ("llama-3-instruct", "Meta-Llama-3-8B-Instruct")
