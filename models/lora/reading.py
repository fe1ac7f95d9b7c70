"""Reads a LoRA module: its weights, and how it is served according to its files."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from l2v.models import checksums
from l2v.models.declaration import Declaration, Declared
from l2v.models.errors import AdapterError, SourceError
from l2v.models.lengths import check_max_length, check_window
from l2v.models.lora.module import LoraModule
from l2v.models.lora.storage import Factors
from l2v.models.pooling_checks import check_pooling
from l2v.models.resolution import read_declaration, tokenizer_source
from l2v.models.sources import Kind, Source, label, resolve
from l2v.models.stack import check_first
from l2v.models.tokenization import Tokenization
from l2v.models.tokenizer import read_tokenizer
from l2v.models.tokenizer_checks import check_vocabulary

logger = logging.getLogger(__name__)

_COMMIT = re.compile("[0-9a-f]{7,40}")
# The settings that all rows of a batch share.
_SHARED = ("semantics", "attention", "lower_case")
_APART = "start a separate service with it among `adapters`"


@dataclass(frozen=True, slots=True)
class ReadModule:
    """A module that has been read, but not checked by a forward pass.

    Attributes:
        module: the module, still without the size of its weights and without evidence.
        factors: the module's weights by layer.
        base: the base that the module was trained on, as the module's config names it.
    """

    module: LoraModule
    factors: Mapping[str, Factors]
    base: str


@dataclass(frozen=True)
class ModuleReader:
    """Reads LoRA modules for one stack, as if each module were the last adapter to merge into it.

    Attributes:
        base, adapters: the sources of the stack: a base, and the adapters that are merged into it.
        settings: the caller's settings, which apply to modules too; None values have no effect.
        ignore: patterns of the names of tensors to leave out.
        declaration, tokenization: how the stack is served, and how it tokenizes.
    """

    base: Source
    adapters: Sequence[Source]
    settings: Mapping[str, Any]
    ignore: Sequence[str]
    declaration: Declaration
    tokenization: Tokenization

    def read(self, name: str, source_name: str, id_: int, decoder: PreTrainedModel) -> ReadModule:
        """Reads a module.

        Args:
            name: the name by which requests choose the module.
            source_name: a Hub id (`id` or `id@revision`) or a folder.
            id_: the module's id.
            decoder: the stack's decoder.

        Raises:
            ModelError: if the module cannot be read, does not fit, must be merged, or cannot share the stack.
        """
        from l2v.models.lora.weights import (
            read_factors,
        )  # imports peft, which encoders without LoRA modules do not need

        source = resolve(source_name)
        if source.kind is not Kind.ADAPTER:
            raise SourceError(
                f"{source.name}, the source of adapter {name}, is not an adapter (it has no adapter_config.json)"
            )
        check_first(self.base, [*self.adapters, source])
        with checksums.checking([source]) as checked:
            declaration = self._declaration(source, decoder)
            tokenization = self._tokenization(source, declaration, decoder, id_)
            check_pooling(tokenization, declaration)
            factors, left_out = read_factors(source, decoder, self.ignore)
            checked.result()
        module = LoraModule(
            id=id_,
            name=name,
            source=source.describe(),
            tokenization=tokenization,
            declaration=declaration,
            rank=max(each.rank for each in factors.values()),
            layers=len(factors),
            left_out=tuple(f"{key} of {source.label}" for key in left_out),
            nbytes=0,
            other_base=self._other_base(name, source),
        )
        return ReadModule(module, factors, label(source.trained_on or "?"))

    def _other_base(self, name: str, source: Source) -> str:
        """The base that a module names, with its revision, if the stack has another base; else "".

        The module may suit the stack's base nevertheless, since its tensors fit: the stack's base may be a renamed or
        fine-tuned copy of the named base.
        """
        named, revision = source.trained_on, str(source.read("adapter_config.json").get("revision"))
        if not named:
            return ""
        stack = [self.base, *self.adapters]
        folder = source.relative(named)
        known = {
            *(each.trained_on for each in self.adapters),
            self.base.read("config.json").get("_name_or_path"),
            *(each.name for each in stack),
        }
        # Compare only the last part of each path, since folders may have been moved.
        same = Path(named).name.lower() in {Path(each).name.lower() for each in known if isinstance(each, str)}
        if not same and not any(folder and each.folder.samefile(folder) for each in stack):
            other = label(named)
        elif _COMMIT.fullmatch(revision) and any(
            each.name == named and not each.revision.startswith(revision) for each in stack
        ):
            other = f"{named}@{revision}"
        else:
            return ""
        logger.warning(
            "adapter %s was trained on %s, but %s is served: check that its vectors are good, or serve its own base",
            name,
            other,
            " + ".join(each.label + f"@{each.revision}" * bool(each.revision) for each in stack),
        )
        return other

    def _declaration(self, source: Source, decoder: PreTrainedModel) -> Declaration:
        """How the module is served. Refuses settings that cannot differ between the rows of a batch."""
        config, sources = decoder.config, [*self.adapters, source]
        positions = getattr(config, "max_position_embeddings", None)
        tokenizer = tokenizer_source(self.base, sources)
        declared = read_declaration(self.base, sources, self.settings, positions, tokenizer)
        for setting in _SHARED:
            own, shared = (getattr(each, setting) for each in (declared, self.declaration))
            if own.value != shared.value:
                raise AdapterError(
                    f"adapter {source.name} declares {setting} {_shown(own)}, but the model it is applied to has "
                    f"{_shown(shared)}, and one batch cannot have both: {_APART}"
                )
        if declared.layers != self.declaration.layers:
            raise AdapterError(f"adapter {source.name} declares Dense layers of its own: {_APART}")
        check_max_length(config, declared)
        check_window(config, declared)
        return declared

    def _tokenization(self, source: Source, declared: Declaration, decoder: PreTrainedModel, id_: int) -> Tokenization:
        own = declared.row_settings(decoder.config.model_type)
        if tokenizer_source(self.base, [*self.adapters, source]) is source:
            tokenizer = read_tokenizer(source, decoder.config.model_type, decoder.config.vocab_size)
            if not tokenizer.equals(self.tokenization.tokenizer, self.tokenization.cut_left):
                if declared.lower_case.value:
                    raise AdapterError(f"adapter {source.name} has a tokenizer of its own and lower_case: {_APART}")
                check_vocabulary(source.name, tokenizer.backend, decoder.config.vocab_size)
                own |= {
                    "tokenizer": tokenizer.backend,
                    "special_ids": frozenset(tokenizer.special_ids),
                    "cut_left": tokenizer.cut_left,
                }
        return replace(self.tokenization, adapter=id_, **own)


def _shown(declared: Declared[Any]) -> str:
    return f"{declared.value} ({declared.origin})"
