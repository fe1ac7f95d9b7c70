"""The losses of the contrastive stages."""

from collections.abc import Sequence

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    CosineSimilarityLoss,
    MultipleNegativesRankingLoss,
)
from torch.nn.functional import cosine_similarity

from l2v.training.errors import TrainingError
from l2v.training.packed_encoder import Features
from l2v.training.recipes import Contrastive, Supervised


def loss_for(recipe: Contrastive, model: SentenceTransformer, devices: int, rows: Dataset) -> torch.nn.Module:
    """The loss of one dataset: if its rows have scores, the mean squared error of the cosine similarity, else InfoNCE.

    Raises:
        TrainingError: if the recipe combines --micro-batch with --distillation.
    """
    if "score" in rows.column_names:
        return CosineSimilarityLoss(model)
    gather = devices > 1
    weight = recipe.distillation if isinstance(recipe, Supervised) else 0.0
    if recipe.micro_batch:
        if weight:
            raise TrainingError(
                "--micro-batch cannot be used with --distillation: the gradient cache supports InfoNCE only"
            )
        return CachedMultipleNegativesRankingLoss(
            model, scale=recipe.scale, mini_batch_size=recipe.micro_batch, gather_across_devices=gather
        )
    contrastive = MultipleNegativesRankingLoss(model, scale=recipe.scale, gather_across_devices=gather)
    return DistillationLoss(model, contrastive, weight) if weight else contrastive


class DistillationLoss(torch.nn.Module):
    """Cosine distance of queries and positives to a teacher's vectors, mixed with a contrastive loss.

    Args:
        model: computes the vectors.
        contrastive: the contrastive loss.
        weight: the weight of the distance, from 0 to 1; the contrastive loss has the weight 1 - `weight`.
    """

    def __init__(self, model: SentenceTransformer, contrastive: MultipleNegativesRankingLoss, weight: float) -> None:
        super().__init__()
        self.model, self.contrastive, self.weight = model, contrastive, weight

    def forward(self, features: Sequence[Features], labels: torch.Tensor) -> torch.Tensor:
        """The loss, given the teacher's vectors as `labels` [n, 2, d]."""
        embeddings = embed_columns(self.model, features)
        distance = 1 - cosine_similarity(torch.stack(embeddings[:2], 1), labels.to(embeddings[0].dtype), dim=-1).mean()
        if self.weight == 1:
            return distance
        contrastive = self.contrastive.compute_loss_from_embeddings(embeddings, labels)
        return (1 - self.weight) * contrastive + self.weight * distance
