"""Packed bidirectional attention compared with plain attention, and the architectures that do and do not support it."""

from collections.abc import Iterator
from itertools import accumulate, pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import masking_utils

from l2v.models import Encoder, Input, UnsupportedModelError, load
from l2v.models import bucketed_attention as buckets
from l2v.models.attention import attend, packed_attention, segment_attention
from l2v.models.bucketed_attention import bucketed_attention
from tests import tiny
from tests.dtypes import MIN_COSINE

SUPPORTED = ["llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "starcoder2"]
TEXTS = ["a", "a longer text with several words in it", "mid sized", "x" * 300, "Grüße, 世界 🙂"]


def states(tokens: int, heads: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(1, heads, tokens, 8, dtype=dtype)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_each_segment_attends_only_to_itself_and_bidirectionally(key_heads: int) -> None:
    torch.manual_seed(0)
    bounds = [0, 1, 4, 11]
    query, key, value = states(11, 4), states(11, key_heads), states(11, key_heads)
    output = segment_attention(query, key, value, torch.tensor(bounds, dtype=torch.int32), 0.3)
    key, value = (part.repeat_interleave(4 // key_heads, dim=1) for part in (key, value))
    for start, end in pairwise(bounds):
        expected = torch.softmax(query[:, :, start:end] @ key[:, :, start:end].mT * 0.3, -1) @ value[:, :, start:end]
        torch.testing.assert_close(output[:, start:end], expected.transpose(1, 2))


@pytest.mark.parametrize("window", [0, 1, 3, 50])
@pytest.mark.parametrize("causal", [False, True])
def test_a_token_attends_up_to_itself_and_within_the_window(causal: bool, window: int) -> None:
    torch.manual_seed(0)
    bounds = [0, 1, 4, 11]
    query, key, value = (states(11, 4) for _ in range(3))
    limits = torch.tensor(bounds, dtype=torch.int32)
    output = segment_attention(query, key, value, limits, 0.3, causal, window)
    for start, end in pairwise(bounds):
        scores = query[:, :, start:end] @ key[:, :, start:end].mT * 0.3
        for i, j in product(range(end - start), repeat=2):
            if (causal and j > i) or (window and abs(i - j) >= window):
                scores[:, :, i, j] = -torch.inf
        expected = torch.softmax(scores, -1) @ value[:, :, start:end]
        torch.testing.assert_close(output[:, start:end], expected.transpose(1, 2))


@pytest.fixture(params=[False, True], ids=["without AMX", "with AMX"])
def amx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With AMX, only buckets of three or more sequences of fewer than 512 tokens are left."""
    monkeypatch.setattr(buckets, "_AMX", request.param)
    buckets._layout.cache_clear()
    yield
    buckets._layout.cache_clear()


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize("window", [0, 5, 40])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [1, 4])
def test_buckets_apply_causality_and_windows_per_sequence(key_heads: int, causal: bool, window: int) -> None:
    torch.manual_seed(0)
    lengths = (1, 40, 3, 300, 129, 33, 40)
    query, key, value = states(sum(lengths), 4), states(sum(lengths), key_heads), states(sum(lengths), key_heads)
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    output = bucketed_attention(query, key, value, lengths, 0.3, causal=causal, window=window)
    torch.testing.assert_close(output, attend(query, key, value, bounds, 0.3, causal=causal, window=window))


@pytest.mark.usefixtures("amx")
@pytest.mark.parametrize("key_heads", [1, 4])
@pytest.mark.parametrize(
    "lengths", [(1, 40, 3, 300, 40, 129, 33), (600, 5, 600, 7, 600, 9), (100,), (32, 64, 64, 32), (1, 1)], ids=str
)
def test_bucketed_attention_equals_attention_per_sequence(lengths: tuple[int, ...], key_heads: int) -> None:
    """In float32, which shows smaller errors than bfloat16, the dtype that buckets are meant for."""
    torch.manual_seed(0)
    total = sum(lengths)
    query, key, value = states(total, 4), states(total, key_heads), states(total, key_heads)
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    output = bucketed_attention(query, key, value, lengths, 0.3)
    torch.testing.assert_close(output, attend(query, key, value, bounds, 0.3))


@pytest.mark.usefixtures("amx")
def test_values_may_be_wider_than_keys() -> None:
    query, key, value = states(80, 4), states(80, 4), torch.randn(1, 4, 80, 16)
    bounds = torch.tensor([0, 10, 20, 30, 80], dtype=torch.int32)
    output = bucketed_attention(query, key, value, (10, 10, 10, 50), 0.3)
    torch.testing.assert_close(output, attend(query, key, value, bounds, 0.3))


def test_a_bucket_with_too_many_scores_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "_MAX_SCORES", 4 * 32 * 32 * 2)
    query, key, value = (states(7 * 20, 4) for _ in range(3))
    bounds = torch.arange(0, 141, 20, dtype=torch.int32)
    output = bucketed_attention(query, key, value, (20,) * 7, 0.31)
    torch.testing.assert_close(output, attend(query, key, value, bounds, 0.31))


def test_the_operator_passes_opcheck() -> None:
    bounds = torch.tensor([0, 2, 5], dtype=torch.int32)
    torch.library.opcheck(
        segment_attention,
        (states(5, 4), states(5, 2), states(5, 2), bounds, 0.5, True, 3),
        test_utils=["test_schema", "test_faketensor"],
    )


def test_positions_are_not_read_to_build_a_mask(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, the CPU would have to wait for the positions."""

    def looked(*_: object) -> None:
        pytest.fail("transformers looked for packed sequences")

    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", looked)
    encoder.encode([Input("a"), Input("b")])


def test_scaling_defaults_to_the_head_dimension() -> None:
    query, key, value = (states(3, 2) for _ in range(3))
    bounds = torch.tensor([0, 3], dtype=torch.int32)
    output, weights = packed_attention(
        torch.nn.Identity(), query, key, value, None, cu_seqlens=bounds, cu_seqlens_cpu=bounds
    )
    torch.testing.assert_close(output, scaled_dot_product_attention(query, key, value).transpose(1, 2))
    assert weights is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"cu_seqlens": None}, "does not pass"),
        ({"attention_mask": torch.zeros(1)}, "its own attention mask"),
        ({"softcap": 50.0}, "soft-caps"),
        ({"s_aux": torch.zeros(1)}, "sinks"),
        ({"indices": torch.zeros(1)}, r"an argument of its own \(indices\)"),
    ],
)
def test_arguments_that_change_the_scores_are_refused(arguments: dict[str, object], reason: str) -> None:
    bounds = torch.tensor([0, 3], dtype=torch.int32)
    arguments = {"attention_mask": None, "cu_seqlens": bounds, "cu_seqlens_cpu": bounds} | arguments
    with pytest.raises(UnsupportedModelError, match=reason):
        packed_attention(torch.nn.Identity(), states(3, 2), states(3, 2), states(3, 2), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_architecture_gives_the_same_vectors_packed_and_as_transformers_computes_them(
    model_type: str, tmp_path: Path
) -> None:
    """The expected vectors come from transformers' own attention with `is_causal=False`, one text at a time."""
    folder = tiny.make_base(tmp_path, model_type)
    encoder = load(str(folder), dtype="float32", skip_instruction=False)
    packed = encoder.encode([Input(text) for text in TEXTS])
    model = encoder.model
    model.config.is_causal = False
    model.set_attn_implementation("eager")
    for text, vector in zip(TEXTS, packed, strict=True):
        ids = torch.tensor([list(encoder.tokenize([Input(text)])[0].ids)])
        with torch.inference_mode():
            expected = model(ids, use_cache=False).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("window", [4, 64])
def test_a_sliding_window_is_cleared(window: int, tmp_path: Path) -> None:
    narrow = load(str(tiny.make_base(tmp_path / "narrow", "mistral", sliding_window=window)), dtype="float32")
    wide = load(str(tiny.make_base(tmp_path / "wide", "mistral", sliding_window=None)), dtype="float32")
    inputs = [Input(text) for text in TEXTS]
    np.testing.assert_allclose(narrow.encode(inputs), wide.encode(inputs), atol=1e-6)


@pytest.mark.parametrize(
    ("model_type", "changes", "reason"),
    [
        ("gemma2", {}, "soft-caps"),
        ("gpt_oss", {"max_position_embeddings": 131072}, "sinks"),
        ("bloom", {}, "mixes the sequences|causally|packed"),
        ("stablelm", {}, "does not pass"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_an_unsupported_architecture_is_refused_with_the_reason(
    model_type: str, changes: dict[str, object], reason: str, tmp_path: Path
) -> None:
    folder = tiny.make_base(tmp_path, model_type, **changes)
    with pytest.raises(UnsupportedModelError, match=reason):
        load(str(folder), dtype="float32")


@pytest.mark.parametrize(("dtype", "least"), MIN_COSINE.items())
def test_vectors_do_not_depend_on_the_batch(adapter: Path, dtype: str, least: float, device: str) -> None:
    if dtype == "int8" and device != "cpu":
        pytest.skip("int8 runs on CPUs")
    encoder: Encoder = load(str(adapter), dtype=dtype, device=device)  # type: ignore[arg-type]
    inputs = [Input(f"text {i} " + "word " * (i * 7 % 60), "Find it:" if i % 3 else "") for i in range(64)]
    together = encoder.encode(inputs, max_batch_tokens=100_000)
    alone = np.concatenate([encoder.encode([input_]) for input_ in inputs])
    assert cosines(together, alone).min() >= least


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    left, right = left.astype(np.float64), right.astype(np.float64)
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
