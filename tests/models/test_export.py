"""The merged export: the same vectors, without peft. What other servers read is in tests/parity/test_exports.py."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from l2v.models import Encoder, Input, ModelError, load
from l2v.models.export import export
from tests.conftest import PARITY
from tests.rights import readable

INPUTS = [Input("hello world"), Input("  a text with leading spaces", "an instruction:"), Input("word " * 600, "long:")]
# A stack whose tokenizer transformers rebuilds, and one whose template the name of the export would not reveal.
MODELS = ["sheared-llama-1.3b-supervised", "mistral-7b-supervised"]


@pytest.fixture(scope="module", params=MODELS)
def original(request: pytest.FixtureRequest) -> Encoder:
    return load(request.param, dtype="float32", prepack=False)


@pytest.fixture(scope="module")
def folder(original: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "renamed"
    export(original, out)
    return out


def test_the_export_gives_the_same_vectors(original: Encoder, folder: Path) -> None:
    again = load(str(folder), dtype="float32")
    np.testing.assert_array_equal(again.encode(INPUTS), original.encode(INPUTS))
    origins = {"settings", "left_out"}  # the values are the same, but the files that they come from are not
    described = [
        {key: value for key, value in each.describe().items() if key not in origins} for each in (again, original)
    ]
    assert described[0] == described[1]


def test_an_adapter_on_top_of_an_export_is_recorded_with_it(base: Path, adapter: Path, tmp_path: Path) -> None:
    export(load(str(base), dtype="float32", prepack=False), tmp_path / "out")
    both = load(str(tmp_path / "out"), [str(adapter)], dtype="float32")
    assert [source["name"] for source in both.provenance] == [base.name, adapter.name]
    np.testing.assert_array_equal(
        both.encode(INPUTS[:1]), load(str(base), [str(adapter)], dtype="float32").encode(INPUTS[:1])
    )


def test_the_export_loads_without_peft(original: Encoder, folder: Path) -> None:
    """`peft` is hidden from the import system."""
    script = (
        "import sys; sys.modules['peft'] = None\n"
        "from l2v.models import Input, load\n"
        f"print(load({str(folder)!r}, dtype='float32').encode([Input('hello world')])[0, :3].tolist())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PARITY.parents[1]
    )
    np.testing.assert_allclose(json.loads(run.stdout), original.encode(INPUTS[:1])[0, :3], atol=1e-6)


def test_a_container_can_read_the_export(folder: Path) -> None:
    """A container runs as another user."""
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.*")} == {readable(folder.parent)}


def test_an_existing_folder_is_not_changed(plain: Encoder, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(ModelError, match="already exists"):
        export(plain, tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("Error: No space left on device (os error 28)")]
)
def test_a_failed_export_leaves_nothing(
    error: Exception, plain: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(type(plain.tokenizer), "write", full)
    with pytest.raises(ModelError, match="No space left"):
        export(plain, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_refused(plain: Encoder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="is not a writable folder"):
        export(plain, tmp_path / "file" / "out")


def test_the_readme_warns_of_a_blank_that_is_a_token_of_its_own(plain: Encoder, tmp_path: Path) -> None:
    """sentence-transformers would pool it with the text after an instruction."""
    export(plain, tmp_path / "out")
    assert "must not change its token count" in (tmp_path / "out/README.md").read_text()
