"""The factors of LoRA modules as forward passes use them: in the model's dtype, joined if layers share an input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from l2v.models.errors import AdapterError

# For grouped products, ranks are padded to a multiple of this, since those products need rows of a multiple of
# 16 bytes.
_MULTIPLE = 8


@dataclass(frozen=True, slots=True)
class Factors:
    """The change of a linear layer's weight, which is scale · b · a.

    Attributes:
        a: [rank, in], the first factor, in the dtype of the file.
        b: [out, rank], the second factor, without the scale, in the dtype of the file.
        scale: factor on the product b · a, from lora_alpha and the rank.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    @property
    def rank(self) -> int:
        return len(self.a)

    def apply(self, states: torch.Tensor) -> torch.Tensor:
        """[T, in] → [T, out] float32: what merging the factors adds to the layer's output."""
        a, b = (factor.to(states.device, torch.float32) for factor in (self.a, self.b))
        return states.float() @ a.T @ b.T * self.scale


@dataclass(frozen=True, slots=True)
class JoinedFactors:
    """A module's factors for the linear layers that share an input.

    One product with the joined first factors reads the input once for all of these layers.

    Attributes:
        a: [in, sum of the ranks], the first factors.
        b: for each layer that the module changes, its columns of the first product, and its second factor [rank, out],
            scaled.
    """

    a: torch.Tensor
    b: Mapping[str, tuple[slice, torch.Tensor]]


# Keys: the name of the first of the layers that share an input.
Weights = Mapping[str, JoinedFactors]


def nbytes(factors: Mapping[str, Factors], dtype: torch.dtype, *, padded: bool) -> int:
    """The number of bytes of a module's factors after their conversion by `join`."""
    ranks = ((_rank(each, padded=padded), each) for each in factors.values())
    return sum(rank * (each.a.shape[1] + len(each.b)) for rank, each in ranks) * dtype.itemsize


def _rank(factors: Factors, *, padded: bool) -> int:
    return -(-factors.rank // _MULTIPLE) * _MULTIPLE if padded else factors.rank


def join(
    name: str,
    factors: Mapping[str, Factors],
    groups: Sequence[tuple[str, ...]],
    device: torch.device,
    dtype: torch.dtype,
    *,
    padded: bool = False,
) -> Weights:
    """Converts a module's factors to the form that forward passes use.

    Args:
        name: the module's name, for messages.
        factors: the factors by layer.
        groups: the layers that share an input.
        device, dtype: the model's device and dtype.
        padded: pad ranks with zeros, as grouped products require.

    Raises:
        AdapterError: if a value is too large for the dtype.
    """
    weights = {}
    for group in groups:
        changed = [layer for layer in group if layer in factors]
        if not changed:
            continue
        firsts, seconds, start = [], {}, 0
        for layer in changed:
            found = factors[layer]
            rank = _rank(found, padded=padded)
            pad = rank - found.rank
            firsts.append(torch.nn.functional.pad(found.a.float().T, (0, pad)))
            second = torch.nn.functional.pad(found.b.float().T * found.scale, (0, 0, 0, pad))
            seconds[layer] = slice(start, start + rank), second.to(device, dtype).contiguous()
            start += rank
        joined = JoinedFactors(torch.cat(firsts, 1).to(device, dtype).contiguous(), seconds)
        for tensor in (joined.a, *(second for _, second in seconds.values())):
            if not tensor.isfinite().all():
                raise AdapterError(
                    f"adapter {name} holds values for {changed[0]} that are too large for {dtype}: use another dtype"
                )
        weights[group[0]] = joined
    return weights
