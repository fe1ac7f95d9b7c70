"""The model that learns: base and earlier adapters merged, a new LoRA adapter on top.

It is loaded by what loads a served model, and runs the same attention, templates and pooling.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.distributed.tensor import DTensor

from l2v.models import Encoder, rights
from l2v.models.batch import Batch
from l2v.models.chain import resolve_chain
from l2v.models.encoder import hidden_states
from l2v.models.sources import Source
from l2v.models.templates import template_for
from l2v.models.tokenizer import write_tokenizer
from l2v.training.checkpoint import tensors
from l2v.training.errors import TrainingError
from l2v.training.recipes import Recipe

# Settings by which some architectures change what comes out of the head.
_ON_LOGITS = ("logits_scaling", "logit_scale", "lm_head_multiplier", "final_logit_softcapping")


@dataclass(frozen=True)
class Student:
    """What is trained.

    Attributes:
        encoder: the merged model underneath, with its tokenization.
        model: the same with the new adapter: only that is trained.
        causal: see `Recipe.bidirectional`.
        base: where the weights of the base model are.
        behind: the source that the adapter is trained on, the last adapter merged or the base; a folder that was named
            by a relative path as it is found from the adapter's folder, for both may move.
    """

    encoder: Encoder
    model: PeftModel
    causal: bool
    base: Source
    behind: str

    @classmethod
    def of(cls, recipe: Recipe, dropout: float = 0.0) -> "Student":
        """Loads and merges what the recipe names, and puts a new adapter on it.

        Args:
            recipe: which model, and what adapter.
            dropout: of the attention's weights.

        Raises:
            ModelError: if the model cannot be loaded.
            TrainingError: if it lacks a module that is to be adapted.
        """
        # The trainer moves it to its own device.
        encoder = recipe.load(packed=False, dtype=recipe.base_dtype, device="cpu")
        base, chain = resolve_chain(recipe.model, recipe.adapters)
        names = {name.rpartition(".")[2] for name, _ in encoder.model.named_modules()}
        if missing := [target for target in recipe.lora_targets if target not in names]:
            raise TrainingError(
                f"{base.name} has no module {missing[0]}: name those to adapt with --lora-targets "
                f"({', '.join(sorted(name for name in names if name.endswith('_proj')))} are there)"
            )
        encoder.model.config.attention_dropout = dropout
        for module in encoder.model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = dropout
        torch.manual_seed(recipe.seed)
        config = LoraConfig(
            r=recipe.lora_r,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=recipe.lora_dropout,
            target_modules=list(recipe.lora_targets),
        )
        model = get_peft_model(encoder.model, config)
        model.peft_config["default"].target_modules = sorted(recipe.lora_targets)
        if recipe.gradient_checkpointing:
            encoder.model.activation_checkpointing_enable({"use_reentrant": False})
        source = chain[-1] if chain else base
        behind = source.name
        if not source.revision and not source.folder.is_absolute():  # a folder's own revision is empty
            behind = os.path.relpath(source.folder, recipe.out)
        return cls(encoder, model, not recipe.bidirectional, base, behind)

    def hidden_states(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """[T, d], through `model`: this student's, or what a trainer has wrapped around it."""
        return hidden_states(model, batch, causal=self.causal)

    def head(self) -> torch.Tensor:
        """[vocabulary, d]: the base model's language-modelling head, which is not trained.

        Raises:
            TrainingError: if the base has none, or does more with its logits than the product with it.
        """
        for name in _ON_LOGITS:
            if getattr(self.encoder.model.config, name, None) not in (None, 1):
                raise TrainingError(f"{self.base.name} changes its logits ({name}), which MNTP here does not support")
        if self.encoder.model.config.tie_word_embeddings:
            embeddings: torch.Tensor = self.encoder.model.get_input_embeddings().weight
            return embeddings.detach()
        head = None
        for name, weights in tensors(self.base.folder):
            if name == "lm_head.bias":
                raise TrainingError(f"{self.base.name} has a head with a bias, which MNTP here does not support")
            if name == "lm_head.weight":
                head = weights.to(self.encoder.model.dtype)
        if head is not None:
            return head
        raise TrainingError(
            f"{self.base.name} has no language-modelling head (lm_head.weight): MNTP needs a whole decoder checkpoint"
        )

    def weights(self) -> dict[str, torch.Tensor]:
        """Those of the adapter, whole: where they are shared out (FSDP), all processes must ask together."""
        trained = {name: weight.detach() for name, weight in self.model.named_parameters() if weight.requires_grad}
        return {
            name: weight.full_tensor() if isinstance(weight, DTensor) else weight for name, weight in trained.items()
        }

    def save(self, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        """Writes the adapter in the layout of the published ones, with the tokenizer and what to load it on."""
        config = self.model.peft_config["default"]
        config.base_model_name_or_path = self.behind
        self.model.save_pretrained(str(folder), state_dict=weights, save_embedding_layers=False)
        rights.share(folder)
        (folder / "README.md").unlink(missing_ok=True)
        write_tokenizer(self.encoder.tokenizer, self.encoder.tokenization.tokenizer, folder)
        # Not the lengths: rows are short for the training's sake, and who serves would cut texts to them.
        settings: dict[str, str | bool] = {
            "pooling_mode": self.encoder.pooling,
            "skip_instruction": self.encoder.tokenization.skip_instruction,
        }
        if self.encoder.template != template_for(self.behind):  # only then: the reference knows no such setting
            settings["template"] = self.encoder.template
        (folder / "llm2vec_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
