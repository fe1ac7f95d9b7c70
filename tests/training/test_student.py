"""A trained adapter is served as it was trained, even after it has been moved."""

import json
import shutil
from pathlib import Path

import pytest

from l2v.models import Input, SourceError, load
from l2v.models.sources import resolve
from l2v.models.tokenizer import read_tokenizer
from l2v.training import contrastive
from l2v.training.recipes import Simcse
from tests.conftest import PARITY


def test_an_adapter_includes_the_settings_of_its_training(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter keeps its template, its base and its tokenizer, which transformers would rebuild differently."""
    home = tmp_path / "home"
    shutil.copytree(PARITY / "stacks/sheared-llama/base", home / "base")
    monkeypatch.chdir(home)
    settings = {"model": "base", "out": "made/mine", "data": (str(lines),), "template": "inst", "device": "cpu"}
    contrastive.build(Simcse(**settings, dtype="float32", batch_size=4, steps=1, learning_rate=1e-2)).run()

    sources = [resolve(name) for name in ("base", "made/mine")]
    base, mine = (read_tokenizer(source).backend for source in sources)
    for text in ("the cat", " the cat", "a </s> b"):
        assert mine.encode(text).ids == base.encode(text).ids

    monkeypatch.chdir(tmp_path)
    home.rename("moved")
    with_base = load("moved/base", ["moved/made/mine"], dtype="float32")
    assert with_base.template == "inst"
    alone = load("moved/made/mine", dtype="float32")
    text = [Input("a </s> b", "Find:")]
    assert (alone.encode(text) == with_base.encode(text)).all()

    # The reference knows the first two only.
    saved = json.loads(Path("moved/made/mine/llm2vec_config.json").read_text())
    assert saved == {"pooling_mode": "mean", "skip_instruction": True, "template": "inst"}

    shutil.rmtree("moved/base")
    with pytest.raises(
        SourceError, match=r"the base of adapter moved/made/mine cannot be loaded: \.\./\.\./base is not"
    ):
        load("moved/made/mine")


def test_an_adapter_keeps_the_template_of_a_base_that_it_does_not_name(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's name determines the template, but a base in a folder of that name is recorded as a path."""
    named = Path("meta-llama/Meta-Llama-3-8B-Instruct")
    shutil.copytree(PARITY / "stacks/llama3-instruct/base", tmp_path / named)
    config = tmp_path / named / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_name_or_path": ""}))
    monkeypatch.chdir(tmp_path)
    settings = {"model": str(named), "out": "mine", "data": (str(lines),), "device": "cpu"}
    contrastive.build(Simcse(**settings, dtype="float32", batch_size=4, steps=1)).run()
    assert load(str(named), dtype="float32").template == "llama-3-instruct"
    mine = load(str(tmp_path / "mine"), dtype="float32")
    assert (mine.template, mine.base) == ("llama-3-instruct", "Meta-Llama-3-8B-Instruct")


def test_a_later_stage_records_what_serving_would_not_find_out(lines: Path, tmp_path: Path) -> None:
    """The base's name implies a template, and the first adapter declares causal attention."""
    first = tmp_path / "first"
    common = {"data": (str(lines),), "device": "cpu", "dtype": "float32", "batch_size": 4, "steps": 1}
    contrastive.build(
        Simcse(model="mistralai/Mistral-7B-Instruct-v0.2", out=first, bidirectional=False, template="none", **common)
    ).run()
    contrastive.build(Simcse(model=str(first), out=tmp_path / "second", template="none", **common)).run()
    served = load(str(tmp_path / "second"), dtype="float32")
    assert [source["kind"] for source in served.provenance] == ["base", "adapter", "adapter"]
    assert (served.template, served.causal) == ("none", False)
    declared = load(str(first), dtype="float32")
    assert (declared.template, declared.causal) == ("none", True)


@pytest.mark.parametrize(("bidirectional", "attention"), [(True, "bidirectional"), (False, "causal")])
def test_an_adapter_of_a_model_with_sentence_transformers_files_is_served_as_it_was_trained(
    bidirectional: bool, attention: str, lines: Path, tmp_path: Path
) -> None:
    base = PARITY / "families" / "stacks" / "old-mean"
    settings = {"model": str(base), "out": tmp_path / "mine", "data": (str(lines),), "device": "cpu"}
    recipe = Simcse(**settings, bidirectional=bidirectional, dtype="float32", batch_size=4, steps=1)
    contrastive.build(recipe).run()
    declared = load(str(tmp_path / "mine"), dtype="float32").declaration
    assert (declared.attention.value, declared.attention.origin) == (attention, "llm2vec_config.json")
    assert (declared.semantics.value, declared.max_length.value) == ("sentence-transformers", 64)
    assert not declared.skip_instruction.value
