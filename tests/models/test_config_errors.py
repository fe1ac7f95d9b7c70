"""Invalid values in config.json are refused with their field, before any weight is read."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from l2v.models import ModelError, UnsupportedModelError
from l2v.models.decoder import build_config, read_config, read_decoder
from l2v.models.errors import first_line
from l2v.models.sources import Source
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore")

ODD = [None, -1, 0, 7, 10**9, 1.5, "", "x", [], {}, True, [1, 2], "../../etc/passwd", "1e-5", float("nan")]
ARCHITECTURES: dict[str, dict[str, object]] = {
    "llama": {},
    "gemma3_text": {"query_pre_attn_scalar": 8, "sliding_window": 512},
    "phi3": {},
    "mixtral": {"num_local_experts": 2},
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_base(tmp_path_factory.mktemp("base"), request.param, **ARCHITECTURES[request.param])


@pytest.fixture
def changed(folder: Path) -> Iterator[Callable[..., Source]]:
    """Changes the config for one test."""
    path = folder / "config.json"
    original = path.read_text()

    def change(**values: object) -> Source:
        path.write_text(json.dumps(json.loads(original) | values))
        return Source("x/y", folder)

    yield change
    path.write_text(original)


def load(source: Source) -> str:
    """Why a base is refused; "" if it is not."""
    try:
        read_decoder(source, read_config(source), torch.float32)
    except ModelError as error:
        return str(error)
    return ""


def test_any_value_loads_or_is_refused_with_its_field(changed: Callable[..., Source], folder: Path) -> None:
    dice = random.Random(folder.name)
    for field in json.loads((folder / "config.json").read_text()):
        for value in dice.sample(ODD, 3):
            reason = load(changed(**{field: value}))
            assert "\n" not in reason
            assert not reason.endswith(":")
            assert "again" not in reason
            shown = (field, "shape", "lack", "is of type", "number of attention heads", "rope_scaling")
            assert not reason or any(word in reason for word in shown), f"{field} = {value!r}: {reason}"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"rms_norm_eps": "1e-05"}, 'rms_norm_eps is "1e-05", but must be a number'),
        ({"rms_norm_eps": None}, "rms_norm_eps is null, but must be a number"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps is -1e-05, but must be at least 0"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps is Infinity, but must be a finite number"),
        ({"hidden_size": "32"}, 'hidden_size is "32", but must be an integer'),
        ({"hidden_size": True}, "hidden_size is true, but must be an integer"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, but must be at least 1"),
        ({"num_hidden_layers": 10**9}, "must be at most 10000"),
        ({"attention_bias": "false"}, 'attention_bias is "false", but must be true or false'),
        ({"hidden_act": "gelu_foo"}, 'hidden_act is "gelu_foo", but must be an activation that transformers knows'),
        ({"hidden_act": None}, "hidden_act is null, but must be text"),
        ({"num_attention_heads": 5}, "not a multiple of the number of attention heads"),
        ({"rope_theta": None, "rope_parameters": None}, "rope_theta is null, but must be a number"),
        ({"rope_theta": "1e4", "rope_parameters": None}, 'rope_theta is "1e4", but must be a number'),
        ({"rope_theta": -1, "rope_parameters": None}, "rope_theta is -1, but must be above 0"),
        ({"rope_scaling": {"type": "foo", "factor": 4.0}}, 'the type of rope_scaling is "foo", but must be one of'),
        ({"rope_scaling": {"rope_type": None}}, "the type of rope_scaling is null"),
        ({"rope_scaling": {"type": "linear"}}, "'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": "4"}}, 'factor is "4", but must be a number'),
        ({"rope_scaling": {"type": "yarn", "factor": 0}}, "factor is 0, but must be a number above 0"),
        ({"rope_scaling": "linear"}, "rope"),
        ({"rope_scaling": [4.0]}, "rope"),
        ({"model_type": None}, "names no model_type"),
        ({"model_type": 3}, "names no model_type"),
    ],
)
def test_the_field_and_its_value_are_named(values: dict[str, object], reason: str) -> None:
    content: dict[str, Any] = {"model_type": "llama", **tiny.SHAPE} | values
    with pytest.raises(ModelError) as refused:
        build_config("x/y", content)
    assert reason in str(refused.value)
    assert "x/y" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "values",
    [
        {"use_cache": None},
        {"pad_token_id": -1},
        {"pad_token_id": 10_000},
        {"initializer_range": "0.02"},
        {"attention_dropout": None},
        {"torch_dtype": "none"},
        {"id2label": []},
        {"num_labels": "2"},
        {"rope_scaling": None},
        {"rope_theta": 500_000, "rope_parameters": None},
        {"rms_norm_eps": 1},
    ],
)
def test_values_without_effect_are_accepted(values: dict[str, object], base: Path) -> None:
    content = json.loads((base / "config.json").read_text()) | values
    config = build_config("x/y", content)
    read_decoder(Source("x/y", base), config, torch.float32)


def test_other_kinds_of_models_are_refused() -> None:
    source = Source("x/y", Path())
    for model_type in ("t5", "gemma3", "whisper"):
        config = build_config("x/y", {"model_type": model_type})
        with pytest.raises(ModelError, match=r"not a text decoder|has no weights"):
            read_decoder(source, config, torch.float32)
    with pytest.raises(UnsupportedModelError, match="of type martian"):
        build_config("x/y", {"model_type": "martian"})


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ValueError("Validation error for field 'x':\n    TypeError: expected bool, got None"),
            "expected bool, got None",
        ),
        (RuntimeError("Error(s) in loading state_dict for Linear:\n\tsize mismatch: 1, 2.\n"), "size mismatch: 1, 2"),
        (KeyError("gelu_foo"), "there is no gelu_foo"),
        (KeyError("Missing keys in `rope_parameters`: {'factor'}"), "Missing keys in `rope_parameters`: {'factor'}"),
        (AssertionError(), "AssertionError"),
        (ValueError("only a heading:"), "only a heading"),
    ],
)
def test_the_informative_line_of_an_error_is_shown(error: Exception, line: str) -> None:
    assert first_line(error) == line
