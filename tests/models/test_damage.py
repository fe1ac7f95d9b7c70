"""Damaged, swapped and tampered models: checksums and the reference vector reveal them; none ends in a traceback."""

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from l2v.models import Encoder, Input, ModelError, SourceError, checksums, load
from l2v.models.checksums import FILE as SUMS
from l2v.models.export import export
from l2v.models.published import DEMO
from l2v.models.reference_vector import FILE as REFERENCE
from l2v.models.reference_vector import FORMER_FILE, ReferenceVector
from tests import tiny


@pytest.fixture(scope="module")
def exported(plain: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the tiny encoder."""
    out = tmp_path_factory.mktemp("exported") / "merged"
    export(plain, out)
    return out


@pytest.fixture
def merged(exported: Path, tmp_path: Path) -> Path:
    """A copy of the export, to damage."""
    return Path(shutil.copytree(exported, tmp_path / "merged"))


def flip(path: Path, dice: random.Random) -> None:
    """Flips one bit of a file."""
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def test_a_flipped_bit_in_any_file_of_an_export_is_detected(merged: Path) -> None:
    dice = random.Random(6)
    recorded = [path for path in files(merged) if path.name != SUMS]
    names = {"model.safetensors", "config.json", "tokenizer.json", "l2v.json", REFERENCE}
    assert names <= {path.name for path in recorded}
    for path in recorded * 5:
        whole = path.read_bytes()
        flip(path, dice)
        with pytest.raises(SourceError, match=f"{path.relative_to(merged)} of .* does not match its checksum"):
            load(str(merged), dtype="float32")
        path.write_bytes(whole)
    load(str(merged), dtype="float32")


def test_a_missing_file_and_a_malformed_record_are_refused(merged: Path) -> None:
    (merged / "README.md").unlink()
    with pytest.raises(SourceError, match=r"README\.md of .* is missing"):
        load(str(merged))
    for line in ("nonsense\n", f"{'0' * 64}  ../../etc/passwd\n", f"{'0' * 64}  /etc/passwd\n"):
        (merged / SUMS).write_text(line)
        with pytest.raises(SourceError, match=r"SHA256SUMS of .* is damaged"):
            load(str(merged))


def test_sha256sum_accepts_the_checksums(exported: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SUMS], cwd=exported, check=True)


def test_the_reference_vector_reveals_weights_of_another_model(merged: Path, tmp_path: Path) -> None:
    """Even if someone has updated the checksums."""
    tiny.make_base(tmp_path / "other", seed=9)
    weights = load_file(merged / "model.safetensors")
    other = {
        name.removeprefix("model."): value for name, value in load_file(tmp_path / "other/model.safetensors").items()
    }
    save_file({name: other[name] for name in weights}, merged / "model.safetensors", {"format": "pt"})
    with pytest.raises(SourceError, match=r"model\.safetensors of .* does not match its checksum"):
        load(str(merged), dtype="float32")
    checksums.write(merged)
    with pytest.raises(ModelError, match="does not reproduce its reference vector"):
        load(str(merged), dtype="float32")


def test_the_reference_vector_reveals_a_tampered_config(merged: Path) -> None:
    path = merged / "config.json"
    content = json.loads(path.read_text())
    for change in ({"rms_norm_eps": 0.5}, {"hidden_act": "relu"}, {"num_attention_heads": 2, "head_dim": 16}):
        path.write_text(json.dumps(content | change))
        checksums.write(merged)
        with pytest.raises(ModelError):
            load(str(merged), dtype="float32")


def test_a_damaged_reference_vector_is_refused(merged: Path) -> None:
    path = merged / REFERENCE
    content = json.loads(path.read_text())
    for change in ({"vector": "no base64!"}, {"vector": None}, {"vector": "AAA="}, {"text": 5}, {"settings": None}):
        path.write_text(json.dumps(content | change))
        checksums.write(merged)
        with pytest.raises(ModelError, match=r"reference_vector\.json|dimensions"):
            load(str(merged), dtype="float32")
    del content["dtype"]
    path.write_text(json.dumps(content))
    checksums.write(merged)
    with pytest.raises(SourceError, match=r"reference_vector\.json of .* is damaged"):
        load(str(merged), dtype="float32")


def test_the_reference_vector_is_compared_only_under_the_same_settings(exported: Path, adapter: Path) -> None:
    def outcome(*adapters: str, **settings: object) -> str:
        return load(str(exported), adapters, dtype="float32", **settings).evidence[-1]  # type: ignore[arg-type]

    assert "reproduced, cosine 1.000000" in outcome()
    assert "not compared" in outcome(pooling="last_token")
    assert "not compared" in outcome(max_length=16)
    assert outcome(str(adapter)) == "reference vector: none recorded"


def test_the_reference_vector_of_an_earlier_export_is_read(merged: Path) -> None:
    content = json.loads((merged / REFERENCE).read_text())
    (merged / REFERENCE).unlink()
    content["way"] = content.pop("settings")
    (merged / FORMER_FILE).write_text(json.dumps(content))
    checksums.write(merged)
    assert "reproduced, cosine 1.000000" in load(str(merged), dtype="float32").evidence[-1]


@pytest.fixture
def cached(base: Path, hub: Path) -> Iterator[Path]:
    """The tiny base in the layout of the Hub's client: blobs named by their digest, and links to them."""
    repository = hub / "models--someone--damaged"
    commit = "d" * 40
    blobs, snapshot = repository / "blobs", repository / "snapshots" / commit
    for folder in (blobs, snapshot, repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    for path in files(base):
        digest = checksums._sha256 if path.suffix == ".safetensors" else checksums._git
        shutil.copy(path, blobs / digest(path))
        (snapshot / path.name).symlink_to(blobs / digest(path))
    yield snapshot
    shutil.rmtree(repository)


def test_a_flipped_bit_in_the_hub_cache_is_detected(cached: Path) -> None:
    assert load("someone/damaged").evidence[0] == f"files: {len(files(cached))} match their checksums"
    dice = random.Random(7)
    for path in files(cached) * 3:
        whole = path.read_bytes()
        flip(path.resolve(), dice)
        with pytest.raises(SourceError, match=f"{path.name} of someone/damaged .* does not match its checksum"):
            load("someone/damaged")
        path.resolve().write_bytes(whole)


def test_git_digests_equal_those_of_git(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello\n")
    assert checksums._git(tmp_path / "file") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_all_files_of_the_built_in_model_have_checksums(tmp_path: Path) -> None:
    for part in ("base", "mntp", "contrastive"):
        listed = {line.split("  ")[1] for line in (DEMO / part / SUMS).read_text().splitlines()}
        assert listed == {path.name for path in files(DEMO / part)} - {SUMS}
    evidence = load("demo", dtype="float32").evidence
    assert "reproduced, cosine 1.00000" in evidence[-1]
    assert evidence[0].startswith("files: 12")


def test_the_recorded_vector_is_that_of_the_encoder(encoder: Encoder, exported: Path) -> None:
    content = json.loads((exported / REFERENCE).read_text())
    expected = encoder.encode([Input(content["text"], content["instruction"])])[0]
    np.testing.assert_array_equal(ReferenceVector.of(encoder).vector, expected)


def test_nan_in_an_embedding_that_no_probe_uses_is_detected(base: Path, tmp_path: Path) -> None:
    for value in (float("nan"), float("inf")):
        folder = Path(shutil.copytree(base, tmp_path / str(value)))
        weights = load_file(folder / "model.safetensors")
        weights["model.embed_tokens.weight"][201, 3] = value
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match=r"embed_tokens\.weight of .* holds NaN or infinity"):
            load(str(folder), dtype="float32")


@pytest.mark.filterwarnings("ignore")
def test_flipped_bits_without_checksums_load_or_are_refused_with_one_sentence(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    """Half of the flips hit the header, where they are detected, and half the weights, where most are not."""
    dice = random.Random(8)
    refused = 0
    for source, name in ((base, "model.safetensors"), (adapter, "adapter_model.safetensors")):
        folder = Path(shutil.copytree(source, tmp_path / source.name))
        whole = (folder / name).read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        for round_ in range(12):
            content = bytearray(whole)
            place = dice.randrange(header) if round_ % 2 else dice.randrange(header, len(whole))
            content[place] ^= 1 << dice.randrange(8)
            (folder / name).write_bytes(content)
            try:
                load(str(folder), dtype="float32")
            except ModelError as error:
                refused += 1
                assert "\n" not in str(error)  # noqa: PT017 - it may also load
    assert refused >= 6


TAMPERED = [None, -1, 0, 1, 7, 10**9, 1.5, "", "x", [], {}, True, [1, 2], "../../etc/passwd"]


@pytest.mark.filterwarnings("ignore")
def test_any_value_in_a_config_loads_or_is_refused_with_one_sentence(base: Path, tmp_path: Path) -> None:
    dice = random.Random(9)
    folder = Path(shutil.copytree(base, tmp_path / "tampered"))
    path = folder / "config.json"
    content = json.loads(path.read_text())
    refused = 0
    for key in content:
        path.write_text(json.dumps(content | {key: dice.choice(TAMPERED)}))
        try:
            load(str(folder), dtype="float32")
        except ModelError:
            refused += 1
    assert refused >= len(content) // 4
    assert torch.get_default_dtype() == torch.float32
