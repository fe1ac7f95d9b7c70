"""Short runs of a loaded model that record the inputs of its attention, and the tokens that each token attends to.

`models.verify` judges the results.
"""

from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from l2v.models import attention
from l2v.models.batch import Batch
from l2v.models.forward import hidden_states
from l2v.models.types import Encoding

# The number of tokens of a probe, low enough to fit into every sliding window and to take little time in a large model.
TOKENS = 8
# The positions of each probe in a pack of three.
LEFT, OWN, RIGHT = (slice(TOKENS * i, TOKENS * (i + 1)) for i in range(3))
# The name of the attention function that records its inputs.
_RECORDED = "l2v_recorded"
# Minimum relative size of rounding noise: reordering several thousand float32 products changes their sum this much.
_LEAST_UNIT = 2.0**-17


@dataclass(frozen=True)
class Reach:
    """Which tokens attend to which others in one call of attention on a pack of three probes, whatever the scores.

    Attributes:
        ahead: how many other tokens of the middle probe attend to its last token.
        back: how many other tokens of the middle probe attend to its first token.
        leaks: whether any token of the middle probe attends to a token of a neighbour.
    """

    ahead: int
    back: int
    leaks: bool


@dataclass
class Trace:
    """The record of one forward pass over T packed tokens.

    Attributes:
        sequences: the token ids of each sequence.
        layers: the queries, keys and values of each token, [T, n] for each call of attention. The last entry is [T, d],
            the hidden states after the final norm.
        reach: which tokens attend to which others, for each call of attention; empty unless three probes are packed.
        windows: the sliding windows that the calls of attention were given.
    """

    sequences: tuple[list[int], ...]
    layers: list[torch.Tensor] = field(default_factory=list)
    reach: list[Reach] = field(default_factory=list)
    windows: set[int | None] = field(default_factory=set)

    @property
    def states(self) -> torch.Tensor:
        return self.layers[-1]

    def differs(self, other: "Trace", rows: slice) -> bool:
        """Whether the values at these positions differ in any bit, in any layer, from those of another run."""
        return not all(torch.equal(a[rows], b[rows]) for a, b in zip(self.layers, other.layers, strict=True))

    def distances(self, other: "Trace", rows: slice, other_rows: slice | None = None) -> list[float]:
        """For each layer, how far the values at these positions are from another run's, relative to their norm."""
        pairs = zip(self.layers, other.layers, strict=True)
        return [_distance(a[rows].float(), b[rows if other_rows is None else other_rows].float()) for a, b in pairs]


@dataclass(frozen=True)
class Probe:
    """Runs sequences of token ids through a model.

    Attributes:
        model: the bare decoder.
        causal: run the model causally.
        windowed: apply the sliding windows of the architecture.
    """

    model: PreTrainedModel
    causal: bool = False
    windowed: bool = False

    def sequences(self, count: int) -> list[list[int]]:
        """The token ids of probes that differ from each other in every token, if the vocabulary is large enough."""
        ids = [(7919 * i + 13) % self.model.config.vocab_size for i in range(count * TOKENS)]
        return [ids[start : start + TOKENS] for start in range(0, len(ids), TOKENS)]

    def run(self, *sequences: list[int], noise: int | None = None) -> Trace:
        """Runs sequences in one packed batch.

        Args:
            sequences: token ids.
            noise: seed of random rounding noise on the products of all layers; None: no noise.
        """
        batch = Batch.pack([Encoding(array("q", ids), pooled=1) for ids in sequences], self.model.device)
        disturbed = nullcontext() if noise is None else _rounding_noise(self.model, noise)
        trace = Trace(sequences)
        with _recording(self.model, trace), disturbed:
            states = hidden_states(self.model, batch, causal=self.causal, windowed=self.windowed)
        trace.layers.append(states)
        return trace


_trace: ContextVar[Trace] = ContextVar("trace")


@contextmanager
def _recording(model: PreTrainedModel, trace: Trace) -> Iterator[None]:
    """Records the calls of packed attention. If the model uses another attention function, records nothing."""
    token = _trace.set(trace)
    packed = model.config._attn_implementation == attention.NAME  # noqa: SLF001 - it has no public getter
    try:
        if packed:
            model.set_attn_implementation(_RECORDED)
        yield
    finally:
        if packed:
            model.set_attn_implementation(attention.NAME)
        _trace.reset(token)


def _recorded_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Calls the model's attention function, and adds the inputs and the reach of the call to the current trace."""
    attend = ALL_ATTENTION_FUNCTIONS[attention.NAME]
    trace = _trace.get()
    trace.windows.add(kwargs.get("sliding_window"))
    trace.layers.append(torch.cat([states[0].transpose(0, 1).flatten(1) for states in (query, key, value)], 1))

    def attending(rows: slice) -> torch.Tensor:
        """[T] bool: which tokens attend to any of these positions.

        All scores are equal, so no attention weight is 0. The output of a token is not 0 if the token attends to a
        marked value.
        """
        marked = torch.zeros_like(value)
        marked[:, :, rows] = 1
        output: torch.Tensor = attend(module, torch.zeros_like(query), torch.zeros_like(key), marked, *args, **kwargs)[
            0
        ]
        return (output[0] != 0).flatten(1).any(1)

    if query.shape[2] == RIGHT.stop:
        ahead = attending(slice(OWN.stop - 1, OWN.stop))[OWN][:-1]
        back = attending(slice(OWN.start, OWN.start + 1))[OWN][1:]
        neighbours = attending(LEFT)[OWN] | attending(RIGHT)[OWN]
        trace.reach.append(Reach(int(ahead.sum()), int(back.sum()), bool(neighbours.any())))
    output: tuple[torch.Tensor, None] = attend(module, query, key, value, *args, **kwargs)
    return output


AttentionInterface.register(_RECORDED, _recorded_attention)


@contextmanager
def _rounding_noise(model: PreTrainedModel, seed: int) -> Iterator[None]:
    """Perturbs all products by up to one epsilon of the model's dtype times the token's root mean square."""
    generator = torch.Generator().manual_seed(seed)
    unit = max(torch.finfo(model.dtype).eps, _LEAST_UNIT)

    def disturb(module: torch.nn.Module, args: object, output: object) -> object:
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return output
        size = unit * output.float().square().mean(-1, keepdim=True).sqrt()
        noise = torch.rand(output.shape, generator=generator).mul_(2).sub_(1).to(output.device)
        return (output + noise * size).to(output.dtype)

    with ExitStack() as hooks:
        for module in filter(_multiplies, model.modules()):
            hooks.enter_context(module.register_forward_hook(disturb))
        yield


def _multiplies(module: torch.nn.Module) -> bool:
    """Whether a module multiplies by a matrix, as linear layers and the experts of a mixture do."""
    weights = module.parameters(recurse=False)
    return not isinstance(module, torch.nn.Embedding) and any(weight.dim() >= 2 for weight in weights)


def _distance(expected: torch.Tensor, given: torch.Tensor) -> float:
    """The distance relative to the norm of `expected`; infinity if the distance is NaN."""
    # Both are divided by the largest value, so that their squares do not overflow.
    largest = expected.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    distance = ((given - expected) / largest).norm() / (expected / largest).norm().clamp(min=1e-30)
    return float(distance.nan_to_num(nan=torch.inf))
