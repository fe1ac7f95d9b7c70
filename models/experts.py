"""Makes a mixture of experts compute each token independently, for the checks in `models.verify`."""

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
        Whether this covers all experts of the model. Some architectures do not use transformers' interface for experts.
    """
    experts = _experts(model)
    # transformers' `use_experts_implementation` adds these attributes.
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
    """Sums the outputs of all experts, each computed on all tokens.

    Args:
        forward: the original method of the module.
        experts: the number of experts.
        states: [T, d].
        indices: [T, k], the experts of each token.
        weights: [T, k], the weights of these experts.
    """
    output = torch.zeros_like(states)
    for expert in range(experts):
        share = (weights * (indices == expert)).sum(-1, keepdim=True)
        output += forward(states, torch.full_like(indices[:, :1], expert), share)
    return output
