"""The masking of MNTP: which tokens are masked, and where each is predicted."""

import torch

from l2v.training.masking import MaskedTokens, mask


def masked_ids(
    all_mask: bool, probability: float = 0.2, maskable: torch.Tensor | None = None
) -> tuple[torch.Tensor, MaskedTokens]:
    torch.manual_seed(0)
    ids = torch.randint(10, 100, (100_000,))
    maskable = torch.ones_like(ids, dtype=torch.bool) if maskable is None else maskable
    maskable[0] = False
    return ids, mask(ids, maskable, probability=probability, mask_id=5, vocabulary=100, all_mask=all_mask)


def test_a_token_is_predicted_at_the_position_before_it() -> None:
    ids, masked = masked_ids(all_mask=True)
    assert torch.equal(masked.labels, ids[masked.positions + 1])
    assert torch.equal((masked.input_ids == 5).nonzero()[:, 0], masked.positions + 1)


def test_the_shares_of_masked_tokens_are_as_configured() -> None:
    ids, masked = masked_ids(all_mask=False)
    assert abs(len(masked.labels) / len(ids) - 0.2) < 0.005
    seen = masked.input_ids[masked.positions + 1]
    assert abs((seen == 5).float().mean() - 0.8) < 0.01
    # One random replacement in ninety happens to be the original token.
    assert abs((seen == masked.labels).float().mean() - 0.1) < 0.01
    untouched = torch.ones_like(ids, dtype=torch.bool)
    untouched[masked.positions + 1] = False
    assert torch.equal(masked.input_ids[untouched], ids[untouched])


def test_only_maskable_tokens_are_masked() -> None:
    maskable = torch.zeros(100_000, dtype=torch.bool)
    maskable[5::7] = True
    _, masked = masked_ids(all_mask=True, probability=0.5, maskable=maskable)
    assert maskable[masked.positions + 1].all()


def test_a_short_row_has_at_least_one_masked_token() -> None:
    ids, maskable = torch.tensor([1, 7, 8]), torch.tensor([False, True, True])
    for seed in range(20):
        torch.manual_seed(seed)
        masked = mask(ids, maskable, probability=1e-9, mask_id=5, vocabulary=9, all_mask=True)
        assert len(masked.labels) == 1
