"""Which tokens MNTP hides, and the position that each is predicted from (paper, section 2.2)."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Masked:
    """A packed row with some tokens hidden.

    Attributes:
        input_ids: [T] int64, what the model sees.
        positions: [m] int64, where the hidden tokens are predicted: each one before its token.
        labels: [m] int64, the hidden tokens.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor


def mask(
    input_ids: torch.Tensor,
    maskable: torch.Tensor,
    *,
    share: float,
    mask_id: int,
    vocabulary: int,
    all_mask: bool,
) -> Masked:
    """Chooses tokens by chance and hides them.

    Args:
        input_ids: [T] int64.
        maskable: [T] bool: not the first of a sequence, which no position precedes, and no special token.
        share: the chance of each maskable token.
        mask_id: what hides a token.
        vocabulary: tokens that may stand in for another.
        all_mask: hide all that are chosen; else 80 %, put another token for 10 % and leave 10 % as they are (BERT's).

    Returns:
        The masked row. A token at i is predicted at i - 1: the decoder's way of reading its logits.
    """
    chosen = (torch.rand(input_ids.shape, device=input_ids.device) < share) & maskable
    if not chosen.any():
        # A short row may be left with nothing to learn, and a mean over nothing is NaN.
        chosen = _one_of(maskable)
    hidden = input_ids.clone()
    if all_mask:
        hidden[chosen] = mask_id
    else:
        fate = torch.rand(input_ids.shape, device=input_ids.device)
        hidden[chosen & (fate < 0.8)] = mask_id
        others = torch.randint(vocabulary, input_ids.shape, device=input_ids.device)
        swapped = chosen & (fate >= 0.8) & (fate < 0.9)
        hidden[swapped] = others[swapped]
    where = chosen.nonzero()[:, 0]
    return Masked(hidden, where - 1, input_ids[where])


def _one_of(maskable: torch.Tensor) -> torch.Tensor:
    chosen = torch.zeros_like(maskable)
    places = maskable.nonzero()[:, 0]
    if len(places):
        chosen[places[torch.randint(len(places), (1,), device=places.device)]] = True
    return chosen
