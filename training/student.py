"""The model being trained: a base with merged adapters, and a new LoRA adapter on top.

The model is loaded by the same code as served models, with the same attention, templates and pooling.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.distributed.tensor import DTensor

from l2v.models import Encoder
from l2v.models.batch import Batch
from l2v.models.checkpoint import Checkpoint
from l2v.models.declaration import Declaration
from l2v.models.forward import hidden_states
from l2v.models.permissions import apply_umask
from l2v.models.resolution import read_declaration
from l2v.models.sources import Source
from l2v.models.stack import resolve_stack
from l2v.models.templates import template_for
from l2v.training.errors import TrainingError
from l2v.training.recipes import Recipe

# Config settings that make some architectures scale or cap the head's output.
_CHANGES_LOGITS = ("logits_scaling", "logit_scale", "lm_head_multiplier", "final_logit_softcapping")


@dataclass(frozen=True)
class Student:
    """The model being trained.

    Attributes:
        encoder: the merged model, which stays frozen, with its tokenization.
        model: the merged model with the new adapter.
        causal: whether attention is causal; see `Recipe.causal`.
        base: the source of the base model's weights.
        adapters: the sources of the adapters that are merged into the base, in order.
        parent: the name of the model that the new adapter extends: the last merged adapter, or the base. A relative
            path is relative to the new adapter's folder, so that both folders can be moved together.
    """

    encoder: Encoder
    model: PeftModel
    causal: bool
    base: Source
    adapters: Sequence[Source]
    parent: str

    @classmethod
    def load(cls, recipe: Recipe, dropout: float = 0.0) -> "Student":
        """Load and merge the recipe's models, and add a new adapter.

        Args:
            recipe: names the models and configures the adapter.
            dropout: dropout rate of the attention weights.

        Raises:
            ModelError: if the model cannot be loaded.
            TrainingError: if the model lacks a module named in `lora_targets`.
        """
        # The trainer moves the model to the training device.
        encoder = recipe.load(prepack=False, dtype=recipe.base_dtype, device="cpu")
        base, adapters = resolve_stack(recipe.model, recipe.adapters)
        names = {name.rpartition(".")[2] for name, _ in encoder.model.named_modules()}
        if missing := [target for target in recipe.lora_targets if target not in names]:
            raise TrainingError(
                f"{base.name} has no module {missing[0]}: choose others with --lora-targets, for example "
                f"{', '.join(sorted(name for name in names if name.endswith('_proj')))}"
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
        source = adapters[-1] if adapters else base
        parent = source.name
        if not source.revision and not source.folder.is_absolute():  # a local folder has no revision
            parent = os.path.relpath(source.folder, recipe.out)
        return cls(encoder, model, recipe.causal, base, adapters, parent)

    def hidden_states(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The hidden states of a batch, [T, d]. `model` is this student's model, or a trainer's wrapper around it."""
        declared = self.encoder.declaration
        windowed = declared.windowed and declared.causal == self.causal
        return hidden_states(model, batch, causal=self.causal, windowed=windowed)

    def head(self) -> torch.Tensor:
        """The base model's language-modelling head, which stays frozen: [vocabulary, d].

        Raises:
            TrainingError: if the base has no head, or a head that is not a plain matrix product.
        """
        for name in _CHANGES_LOGITS:
            if getattr(self.encoder.model.config, name, None) not in (None, 1):
                raise TrainingError(f"{self.base.name} changes its logits ({name}), which MNTP does not support")
        if self.encoder.model.config.tie_word_embeddings:
            embeddings: torch.Tensor = self.encoder.model.get_input_embeddings().weight
            return embeddings.detach()
        checkpoint = Checkpoint.of(self.base)
        if "lm_head.bias" in checkpoint.shapes:
            raise TrainingError(f"the head of {self.base.name} has a bias, which MNTP does not support")
        if "lm_head.weight" in checkpoint.shapes:
            return checkpoint.tensor("lm_head.weight").to(self.encoder.model.dtype)
        raise TrainingError(
            f"{self.base.name} has no language-modelling head (lm_head.weight): MNTP needs a full decoder checkpoint"
        )

    def weights(self) -> dict[str, torch.Tensor]:
        """The adapter's weights. If they are sharded (FSDP), this gathers them: all processes must call it."""
        trained = {name: weight.detach() for name, weight in self.model.named_parameters() if weight.requires_grad}
        return {
            name: weight.full_tensor() if isinstance(weight, DTensor) else weight for name, weight in trained.items()
        }

    def save(self, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        """Write the adapter, its tokenizer and its settings, in the layout of published adapters."""
        config = self.model.peft_config["default"]
        config.base_model_name_or_path = self.parent
        self.model.save_pretrained(str(folder), state_dict=weights, save_embedding_layers=False)
        apply_umask(folder)
        (folder / "README.md").unlink(missing_ok=True)
        self.encoder.tokenizer.write(folder)
        # Omit max_length and doc_max_length: training uses low values, to which serving would cut texts.
        settings: dict[str, str | bool] = {
            "pooling_mode": self.encoder.pooling,
            "skip_instruction": self.encoder.tokenization.skip_instruction,
        }
        # The reference implementation does not know the other settings, so they are written only if serving would find
        # other values.
        semantics = self.encoder.declaration.semantics.value
        found = self._found()
        if semantics != "llm2vec":
            settings["semantics"] = semantics
        if found.causal != self.causal or semantics != "llm2vec":
            settings["attention"] = "causal" if self.causal else "bidirectional"
        # A copy of the base may have a name that implies no template; see `parent`.
        if any(template != self.encoder.template for template in (found.template.value, template_for(self.parent))):
            settings["template"] = self.encoder.template
        (folder / "llm2vec_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _found(self) -> Declaration:
        """What the files of the models that the adapter extends declare."""
        positions = getattr(self.encoder.model.config, "max_position_embeddings", None)
        declared = self.encoder.declaration
        known: dict[str, Any] = {"semantics": declared.semantics.value, "max_length": declared.max_length.value}
        if declared.semantics.value != "llm2vec":  # the files may declare no attention
            known["attention"] = declared.attention.value
        return read_declaration(self.base, self.adapters, known, positions, self.base)
