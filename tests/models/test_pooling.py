"""Pooling of packed states compared with the plain formula, sequence by sequence."""

from array import array

import pytest
import torch

from l2v.models.batch import Batch
from l2v.models.pooling import pool
from l2v.models.types import Encoding, Pooling

LENGTHS, SPANS = [3, 1, 7, 5], [2, 1, 7, 1]


@pytest.fixture
def batch() -> Batch:
    rows = [Encoding(array("q", range(length)), pooled) for length, pooled in zip(LENGTHS, SPANS, strict=True)]
    return Batch.pack(rows, torch.device("cpu"))


def test_pack_concatenates_sequences(batch: Batch) -> None:
    assert batch.cu_seqlens.tolist() == [0, 3, 4, 11, 16]
    assert batch.position_ids[0].tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]
    assert batch.input_ids.shape == (1, 16)
    assert batch.max_seqlen == 7


@pytest.mark.parametrize("pooling", ["mean", "weighted_mean", "eos_token", "last_token", "bos_token"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_equals_the_formula(batch: Batch, pooling: Pooling, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(sum(LENGTHS), 6).to(dtype)
    pooled = pool(hidden, batch, pooling)
    assert pooled.dtype == torch.float32
    for row, sequence, span in zip(pooled, hidden.split(LENGTHS), SPANS, strict=True):
        states = sequence.double()
        weights = torch.arange(1, span + 1, dtype=torch.double)[:, None]
        expected = {
            "mean": states[-span:].mean(0),
            "weighted_mean": (states[-span:] * weights).sum(0) / weights.sum(),
            "eos_token": states[-1],
            "last_token": states[-1],
            "bos_token": states[0],
        }[pooling]
        torch.testing.assert_close(row.double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("pooling", ["weighted_mean", "bos_token"])
def test_sentence_transformers_counts_from_the_start_of_the_row(batch: Batch, pooling: Pooling) -> None:
    hidden = torch.randn(sum(LENGTHS), 6)
    pooled = pool(hidden, batch, pooling, "sentence-transformers")
    for row, sequence, span in zip(pooled, hidden.split(LENGTHS), SPANS, strict=True):
        weights = torch.arange(1, len(sequence) + 1.0)[-span:, None]
        expected = (sequence[-span:] * weights).sum(0) / weights.sum()
        torch.testing.assert_close(row, sequence[-span] if pooling == "bos_token" else expected)


def test_pooling_is_deterministic(batch: Batch) -> None:
    hidden = torch.randn(sum(LENGTHS), 6)
    assert torch.equal(pool(hidden, batch, "mean"), pool(hidden, batch, "mean"))
