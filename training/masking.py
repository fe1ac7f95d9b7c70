"""The masking of MNTP: which tokens are masked, and at which position each is predicted (paper, section 2.2)."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class MaskedTokens:
    """A packed row of tokens, some of them masked.

    Attributes:
        input_ids: [T] int64, the model's input.
        positions: [m] int64, the position before each masked token, where the token is predicted.
        labels: [m] int64, the original tokens.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor


def mask(
    input_ids: torch.Tensor,
    maskable: torch.Tensor,
    *,
    probability: float,
    mask_id: int,
    vocabulary: int,
    all_mask: bool,
) -> MaskedTokens:
    """Mask tokens at random.

    Args:
        input_ids: [T] int64, the original tokens.
        maskable: [T] bool, false for special tokens and for the first token of a sequence, which has no position
            before it.
        probability: the chance that a maskable token is chosen.
        mask_id: the id of the token that replaces masked tokens.
        vocabulary: number of tokens to draw random replacements from.
        all_mask: whether to mask every chosen token; otherwise, mask 80 %, replace 10 % at random and keep 10 %, as
            BERT does.

    Returns:
        The masked row. A token at i is predicted at i - 1, as in causal language modelling.
    """
    chosen = (torch.rand(input_ids.shape, device=input_ids.device) < probability) & maskable
    if not chosen.any():
        # In a short row, chance may choose no token; the mean loss would then be NaN.
        chosen = _choose_one(maskable)
    masked = input_ids.clone()
    if all_mask:
        masked[chosen] = mask_id
    else:
        draw = torch.rand(input_ids.shape, device=input_ids.device)
        masked[chosen & (draw < 0.8)] = mask_id
        others = torch.randint(vocabulary, input_ids.shape, device=input_ids.device)
        replaced = chosen & (draw >= 0.8) & (draw < 0.9)
        masked[replaced] = others[replaced]
    indices = chosen.nonzero()[:, 0]
    return MaskedTokens(masked, indices - 1, input_ids[indices])


def _choose_one(maskable: torch.Tensor) -> torch.Tensor:
    chosen = torch.zeros_like(maskable)
    indices = maskable.nonzero()[:, 0]
    if len(indices):
        chosen[indices[torch.randint(len(indices), (1,), device=indices.device)]] = True
    return chosen
