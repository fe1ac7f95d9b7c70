"""The products of a model's linear layers before and after quantization."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

# The input and the output of a linear layer, [1, T, in] and [1, T, out].
Product = tuple[torch.Tensor, torch.Tensor]


@contextmanager
def recorded_products(model: torch.nn.Module) -> Iterator[dict[str, Product]]:
    """Records the product of each linear layer in the next forward pass, by the layer's name."""
    products: dict[str, Product] = {}

    def recorder(name: str) -> Any:
        def record(module: torch.nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
            products[name] = args[0], output

        return record

    linears = [(name, module) for name, module in model.named_modules() if type(module) is torch.nn.Linear]
    with ExitStack() as hooks:
        for name, module in linears:
            hooks.enter_context(module.register_forward_hook(recorder(name)))
        yield products


def largest_error(layer: torch.nn.Module, product: Product, repeats: int) -> float:
    """The largest relative error of a token's product in two calls of the layer.

    The first call gets the recorded tokens, the second gets `repeats` copies of them.
    """
    states, expected = product[0], product[1].float()
    tokens = states.shape[-2]
    given = torch.stack([layer(torch.cat([states] * n, -2)).float()[..., :tokens, :] for n in (1, repeats)])
    return float(((given - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-30)).max())
