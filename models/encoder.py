"""The encoder: inputs in, pooled float32 vectors out."""

import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from l2v.models.batch import Batch, batches, token_budget
from l2v.models.fp8 import Fp8Linear
from l2v.models.int8 import Int8Linear
from l2v.models.packing import PackedLinear
from l2v.models.pooling import pool
from l2v.models.tokenization import Tokenization
from l2v.models.types import Encoding, Input, Pooling

# Tokens of a row to warm up with, of the first forward pass, and of the one by which a budget is reckoned.
_ROW, _FIRST_TOKENS, _RATE_TOKENS = 16, 16, 128


@dataclass(frozen=True)
class Encoder:
    """A bidirectional decoder with merged adapters, its tokenizer and its way of pooling. Made by `models.load`.

    `forward` belongs to one thread at a time; `tokenize` may be called from many.

    Attributes:
        model: the bare decoder (no language-modelling head), in evaluation mode.
        tokenizer: as transformers loaded it, for the export.
        tokenization: how inputs become token ids.
        pooling: the pooling mode.
        base: the name of the base model, on which the template depends.
        template: the template's name.
        provenance: each source that was merged, in order: its name, kind and revision.
        evidence: what loading has proved of it, a line each.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    tokenization: Tokenization
    pooling: Pooling
    base: str
    template: str
    provenance: list[dict[str, str]] = field(default_factory=list)
    evidence: tuple[str, ...] = ()

    @property
    def dimensions(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def max_length(self) -> int:
        return self.tokenization.max_length

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> str:
        if self._holds(Int8Linear):
            return "int8"
        return "fp8" if self._holds(Fp8Linear) else str(self.model.dtype).removeprefix("torch.")

    @property
    def packed(self) -> bool:
        """Whether its weights lie as the CPU multiplies them: then they can be neither saved, trained nor compiled."""
        return self._holds(Int8Linear) or self._holds(PackedLinear)

    @property
    def weight_bytes(self) -> int:
        """Memory that the weights take on the device."""
        return sum(weight.numel() * weight.element_size() for weight in self._weights())

    def _weights(self) -> Iterator[torch.Tensor]:
        yield from self.model.parameters()
        yield from (m.packed for m in self.model.modules() if isinstance(m, Int8Linear | Fp8Linear | PackedLinear))

    def _holds(self, kind: type[torch.nn.Module]) -> bool:
        return any(isinstance(module, kind) for module in self.model.modules())

    def describe(self) -> dict[str, Any]:
        """What a caller may want to know of the model, for `/info`."""
        return {
            "dtype": self.dtype,
            "device": str(self.device),
            "base": self.base,
            "architecture": self.model.config.model_type,
            "dimensions": self.dimensions,
            "parameters": sum(weight.numel() for weight in self._weights()),
            "pooling": self.pooling,
            "template": self.template,
            "max_length": self.max_length,
            "doc_max_length": self.tokenization.doc_max_length,
            "skip_instruction": self.tokenization.skip_instruction,
            "sources": self.provenance,
        }

    def tokenize(self, inputs: Sequence[Input]) -> list[Encoding]:
        """Tokenises inputs; raises `InputError` for one that cannot be encoded."""
        return self.tokenization(inputs)

    @torch.inference_mode()
    def forward(self, encodings: list[Encoding]) -> list[NDArray[np.float32]]:
        """Runs one packed batch.

        Args:
            encodings: n encodings; together they should keep to the token budget, which the caller sets.

        Returns:
            n arrays in the order of the encodings, float32, not normalised: a pooled vector [d], or, where nothing is
            to be pooled, the states of all positions [tokens, d].
        """
        batch = Batch.pack(encodings, self.device)
        states = hidden_states(self.model, batch)
        rows = list(pool(states, batch, self.pooling).cpu().numpy())
        ends = accumulate(map(len, encodings))
        for index, (encoding, end) in enumerate(zip(encodings, ends, strict=True)):
            if not encoding.pooled:
                rows[index] = states[end - len(encoding) : end].float().cpu().numpy()
        return rows

    def warm_up(self, max_batch_tokens: int | None = None) -> int:
        """Does once what is slow at its first time.

        Returns:
            The token budget of a forward pass: `max_batch_tokens`, or where that is None, what suits this device.
        """
        self._rate(_FIRST_TOKENS)
        budget = max_batch_tokens or token_budget(self.device, self._rate(_RATE_TOKENS))
        if self.device.type == "cuda":
            # It loads code and takes memory at first use. If there is not enough, whoever runs such a batch will see.
            with suppress(torch.OutOfMemoryError):
                self._rate(budget)
        return budget

    def _rate(self, tokens: int) -> float:
        """Tokens a second of a batch of about so many."""
        row = Encoding(array("q", [0] * min(_ROW, self.max_length)), pooled=1)
        rows = max(1, tokens // len(row))
        started = time.perf_counter()
        self.forward([row] * rows)
        return rows * len(row) / (time.perf_counter() - started)

    def encode(self, inputs: Sequence[Input], max_batch_tokens: int | None = None) -> NDArray[np.float32]:
        """Tokenises and runs inputs; [n, d] float32, not normalised.

        Args:
            inputs: any number of them.
            max_batch_tokens: the budget of one forward pass; where None, the device's (`models.batch.token_budget`).
        """
        budget = max_batch_tokens or token_budget(self.device)
        rows = [row for batch in batches(self.tokenize(inputs), budget) for row in self.forward(batch)]
        return np.stack(rows) if rows else np.zeros((0, self.dimensions), np.float32)


def hidden_states(model: torch.nn.Module, batch: Batch, *, causal: bool = False) -> torch.Tensor:
    """[T, d]: the hidden states of a packed batch after the final norm; `causal` is for comparison only."""
    output = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        cu_seqlens=batch.cu_seqlens,
        max_seqlen=batch.max_seqlen,
        causal=causal,
        use_cache=False,
    )
    states: torch.Tensor = output.last_hidden_state[0]
    return states
