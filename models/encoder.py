"""The encoder: inputs in, pooled float32 vectors out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from l2v.models.batch import Batch, batches, token_budget
from l2v.models.declaration import Declaration
from l2v.models.forward import hidden_states
from l2v.models.head import Head
from l2v.models.pooling import pool
from l2v.models.prepacking import PrepackedLinear
from l2v.models.quantization.fp8 import Fp8Linear
from l2v.models.quantization.int8 import Int8Linear
from l2v.models.templates import TemplateName
from l2v.models.tokenization import Tokenization
from l2v.models.tokenizer import ModelTokenizer
from l2v.models.types import Encoding, Input, Pooling

if TYPE_CHECKING:
    from l2v.models.lora.adapters import Adapters


@dataclass(frozen=True)
class Encoder:
    """A decoder with merged adapters, its tokenizer and its pooling. Returned by `models.load`.

    Only one thread at a time may call `forward`. Any number of threads may call `tokenize` at the same time.

    Attributes:
        model: the bare decoder (no language-modelling head), in evaluation mode.
        tokenizer: the tokenizer with the roles of its special tokens, which exports need.
        tokenization: converts inputs to token ids.
        declaration: how the model is served, and where each value comes from.
        base: the name of the base model, which determines the template.
        adapters: the LoRA modules that are not merged. An encoding chooses one by id.
        head: the Dense layers before and after pooling; there may be none.
        left_out: the tensors of the sources that an encoder does not need.
        provenance: the merged sources in order: name, kind and revision of each.
        evidence: the results of the checks made while loading, as `name: result` lines.
    """

    model: PreTrainedModel
    tokenizer: ModelTokenizer
    tokenization: Tokenization
    declaration: Declaration
    base: str
    adapters: "Adapters"
    head: Head = field(default_factory=Head)
    left_out: tuple[str, ...] = ()
    provenance: list[dict[str, str]] = field(default_factory=list)
    evidence: tuple[str, ...] = ()

    @property
    def pooling(self) -> Pooling:
        return self.declaration.pooling.value

    @property
    def template(self) -> TemplateName:
        return self.declaration.template.value

    @property
    def causal(self) -> bool:
        return self.declaration.causal

    @property
    def width(self) -> int:
        """The number of dimensions of a vector from `forward`."""
        return self.head.width(int(self.model.config.hidden_size))

    @property
    def state_width(self) -> int:
        """The number of dimensions of the hidden states from `forward`."""
        return self.head.state_width(int(self.model.config.hidden_size))

    @property
    def dimensions(self) -> int:
        """The number of leading dimensions to keep by default."""
        return self.declaration.truncate_dim.value or self.width

    @property
    def max_length(self) -> int:
        return self.tokenization.max_length

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> str:
        if self._has(Int8Linear):
            return "int8"
        return "fp8" if self._has(Fp8Linear) else str(self.model.dtype).removeprefix("torch.")

    @property
    def prepacked(self) -> bool:
        """Whether weights are in oneDNN's layout. If so, the model can be neither saved, trained nor compiled."""
        return self._has(Int8Linear) or self._has(PrepackedLinear)

    @property
    def weight_bytes(self) -> int:
        """Size of the weights on the device."""
        return sum(weight.numel() * weight.element_size() for weight in self._weights())

    def _weights(self) -> Iterator[torch.Tensor]:
        yield from self.model.parameters()
        yield from self.head.parameters()
        yield from (m.weight for m in self.model.modules() if isinstance(m, Int8Linear | Fp8Linear | PrepackedLinear))

    def _has(self, kind: type[torch.nn.Module]) -> bool:
        return any(isinstance(module, kind) for module in self.model.modules())

    def describe(self) -> dict[str, Any]:
        """The model's properties, for `/info`."""
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
            "attention": self.declaration.attention.value,
            "settings": self.declaration.describe(),
            "sources": self.provenance,
            "left_out": list(self.left_out),
        }

    def tokenize(self, inputs: Sequence[Input]) -> list[Encoding]:
        """Tokenizes inputs. Raises `InputError` if an input cannot be encoded."""
        return self.tokenization(inputs)

    @torch.inference_mode()
    def forward(self, encodings: list[Encoding]) -> list[NDArray[np.float32]]:
        """Runs one packed batch.

        Args:
            encodings: n encodings, whose total length the caller keeps within the token budget.

        Returns:
            n float32 arrays, not normalized, in the order of the encodings: the pooled vector [width], or the hidden
            states of all positions [tokens, d] if the encoding's `pooled` is 0.

        Raises:
            AdapterError: if an encoding names a LoRA module that is not loaded.
        """
        order = sorted(range(len(encodings)), key=lambda index: encodings[index].adapter)
        encodings = [encodings[index] for index in order]
        states, vectors = self._compute(encodings)
        rows = list(vectors.cpu().numpy())
        ends = accumulate(map(len, encodings))
        for row, (encoding, end) in enumerate(zip(encodings, ends, strict=True)):
            if not encoding.pooled:
                rows[row] = self.head.states(states[end - len(encoding) : end]).float().cpu().numpy()
        return [row for _, row in sorted(zip(order, rows, strict=True), key=lambda pair: pair[0])]

    def _compute(self, encodings: list[Encoding]) -> tuple[torch.Tensor, torch.Tensor]:
        """Starts the computation of a packed batch on the device, and does not wait for it.

        Args:
            encodings: the batch, sorted by LoRA module.

        Returns:
            The decoder's hidden states [T, d] and the pooled vectors [n, width], on the device.
        """
        batch = Batch.pack(encodings, self.device)
        with self.adapters.applied(batch):
            states = hidden_states(self.model, batch, causal=self.causal, windowed=self.declaration.windowed)
        return states, self.pool(states, batch)

    def pool(self, states: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Applies the head and the pooling to the decoder's states [T, d] of a batch. Returns [n, width]."""
        states, semantics = self.head.states(states), self.declaration.semantics.value
        modes = [self.adapters.pooling(id_) if id_ else self.pooling for id_ in batch.adapters] or [self.pooling]
        pooled = {mode: pool(states, batch, mode, semantics) for mode in dict.fromkeys(modes)}
        if len(pooled) > 1:  # each input gets the pooling of its LoRA module
            runs = [(mode, len(list(rows))) for mode, rows in groupby(modes)]
            starts = accumulate((rows for _, rows in runs), initial=0)
            parts = [pooled[mode][start : start + rows] for (mode, rows), start in zip(runs, starts, strict=False)]
            pooled = {modes[0]: torch.cat(parts)}
        vectors: torch.Tensor = self.head.vectors(pooled[modes[0]])
        return vectors

    def encode(self, inputs: Sequence[Input], max_batch_tokens: int | None = None) -> NDArray[np.float32]:
        """Tokenizes and embeds inputs.

        Args:
            inputs: any number of inputs.
            max_batch_tokens: token budget of a forward pass; None: the device's default (`models.batch.token_budget`).

        Returns:
            [n, dimensions] float32, not normalized.
        """
        budget = max_batch_tokens or token_budget(self.device)
        rows = [
            row[: self.dimensions] for batch in batches(self.tokenize(inputs), budget) for row in self.forward(batch)
        ]
        return np.stack(rows) if rows else np.zeros((0, self.dimensions), np.float32)
