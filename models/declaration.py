"""How a model is served, as its files declare, and which file each value comes from.

Highest precedence first: the caller's settings, l2v.json or llm2vec_config.json, the files of sentence-transformers and
config.json, the defaults.
"""

from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from l2v.models.sentence_transformers.files import DenseConfig
from l2v.models.sources import Source
from l2v.models.templates import TEMPLATES, TemplateName, eos_for
from l2v.models.types import Attention, Int8Scale, Metric, Pooling, Semantics

T = TypeVar("T")

SETTING, DEFAULT = "setting", "default"
OWN_FILES = ("llm2vec_config.json", "l2v.json")


@dataclass(frozen=True, slots=True)
class Declared(Generic[T]):
    """A value and where it comes from: `setting`, a file of the sources, or `default`."""

    value: T
    origin: str = DEFAULT


@dataclass(frozen=True)
class Declaration:
    """How a model is served.

    Attributes:
        semantics: how an instruction and a text become tokens, and which tokens are pooled, see `types.Semantics`.
        attention: `bidirectional`, or `causal` as in the original decoder.
        pooling: the pooling mode.
        skip_instruction: pool only the text.
        max_length: maximum tokens of an input, including its instruction and special tokens.
        doc_max_length: maximum tokens of a text alone.
        template: the name of the template.
        lower_case: lower-case texts and instructions.
        prompts: named prompts.
        default_prompt_name: the name of the prompt for texts with neither an instruction nor another prompt; None: no
            prompt.
        similarity: the metric for comparing vectors.
        normalize: whether the model normalizes its vectors. Embedding requests have their own field for this.
        truncate_dim: how many leading dimensions to keep by default; None: all dimensions.
        matryoshka_dimensions: the numbers of leading dimensions that the model was trained for; None if not declared.
        int8_scale: how vectors become 8-bit integers, if a request asks for 8-bit integers.
        windowed: apply the sliding windows of the architecture. LLM2Vec ignores them.
        layers: the Dense layers after the decoder.
        layers_source: the source that holds the folders of the Dense layers.
        width: the width of the token states that the pooling expects; 0 if not declared.
        served_before: whether l2v 0.1 could load the model.
    """

    semantics: Declared[Semantics]
    attention: Declared[Attention]
    pooling: Declared[Pooling]
    skip_instruction: Declared[bool]
    max_length: Declared[int]
    doc_max_length: Declared[int]
    template: Declared[TemplateName]
    lower_case: Declared[bool]
    prompts: Declared[dict[str, str]]
    default_prompt_name: Declared[str | None]
    similarity: Declared[Metric]
    normalize: Declared[bool]
    truncate_dim: Declared[int | None]
    matryoshka_dimensions: Declared[tuple[int, ...] | None]
    int8_scale: Declared[Int8Scale]
    windowed: bool
    layers: tuple[DenseConfig, ...]
    layers_source: Source
    width: int
    served_before: bool

    @property
    def causal(self) -> bool:
        return self.attention.value == "causal"

    @property
    def notice(self) -> str:
        """How serving differs from l2v 0.1, which ignored sentence-transformers' files.

        "" if nothing differs, or if l2v 0.1 could not load the model.
        """
        if self.semantics.value == "llm2vec" or self.semantics.origin in (SETTING, *OWN_FILES):
            return ""
        if not self.served_before:
            return ""
        changed = [f"attention {self.attention.value}", f"pooling {self.pooling.value}"]
        changed += [f"max_length {self.max_length.value}", "instructions and prompts verbatim"]
        changed += [f"{len(self.layers)} Dense layers"] if self.layers else []
        return (
            f"served as its sentence-transformers files declare ({', '.join(changed)}); l2v 0.1 ignored them, so "
            "its vectors do not match: embed the texts again, or set L2V_SEMANTICS=llm2vec to get the old vectors "
            "(unless tokenizer_config.json has a flag such as add_eos_token, which l2v 0.1 also ignored)"
        )

    def row_settings(self, model_type: str) -> dict[str, Any]:
        """The fields of a `Tokenization` that the declaration sets, by name."""
        template = TEMPLATES[self.template.value]
        return {
            "template": template,
            "eos": eos_for(template, model_type) if self.pooling.value == "eos_token" else "",
            "max_length": self.max_length.value,
            "doc_max_length": self.doc_max_length.value,
            "skip_instruction": self.skip_instruction.value,
        }

    def describe(self) -> dict[str, dict[str, Any]]:
        """Every value and its origin, by name, for `/info`."""
        declared = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: {"value": each.value, "origin": each.origin}
            for name, each in declared.items()
            if isinstance(each, Declared)
        }
