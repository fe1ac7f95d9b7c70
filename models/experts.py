"""Mixtures of experts in the runs of `models.probe`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch


def is_mixture(model: torch.nn.Module) -> bool:
    """Whether the model is a mixture of experts."""
    return bool(_experts(model))


@contextmanager
def fixed_shapes(model: torch.nn.Module) -> Iterator[bool]:
    """Makes each expert multiply all tokens, so that no product's shape depends on where other tokens are routed.

    Yields:
        Whether all experts of the model do, or it has none. Some architectures do not use transformers' interface.
    """
    experts = _experts(model)
    # What transformers' `use_experts_implementation` adds.
    fixed = [module for module in experts if hasattr(module, "_apply_gate") and hasattr(module, "num_experts")]
    for module in fixed:
        module.forward = partial(_one_by_one, module.forward, int(module.num_experts))  # type: ignore[arg-type]
    try:
        yield len(fixed) == len(experts)
    finally:
        for module in fixed:
            del module.forward


def _experts(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules with the weights of experts to which tokens are routed."""
    return [
        module
        for name, module in model.named_modules()
        if "experts" in f"{name}.{type(module).__name__}".lower()
        and "shared" not in name
        and any(weight.dim() > 1 for weight in module.parameters(recurse=False))
    ]


def _one_by_one(
    forward: Callable[..., torch.Tensor],
    experts: int,
    states: torch.Tensor,
    indices: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Adds up what each expert makes of all tokens.

    Args:
        forward: the experts' own.
        experts: their number.
        states: [T, d].
        indices: [T, k], the experts of each token.
        weights: [T, k], their weights.
    """
    output = torch.zeros_like(states)
    for expert in range(experts):
        share = (weights * (indices == expert)).sum(-1, keepdim=True)
        output += forward(states, torch.full_like(indices[:, :1], expert), share)
    return output
