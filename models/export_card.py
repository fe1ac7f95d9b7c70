"""The README of an export. It says which servers open the export with the same vectors, and under which conditions.

The tests run sentence-transformers on exports, and each export is compared with the results of transformers. The
clauses about TEI and vLLM follow from reading the code of these servers, see docs/exports.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from l2v.models.encoder import Encoder
from l2v.models.sentence_transformers.writing import leading_without_weight

_CARD = """---
library_name: sentence-transformers
base_model: {base}
---

# {base}, as an encoder

Exported by `l2v export` from {sources}: {attention} attention, `{pooling}` pooling, {dimensions} dimensions.
To serve it with all its features:

    l2v serve --model FOLDER

Other servers open the folder as follows. "The same vectors" means the vectors that l2v returns by default, normalized,
up to rounding in the same dtype.

{readers}
"""
# The model types that TEI supports. It reads their attention from the keys that exports write.
_IN_TEI = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
# The model types whose attention vLLM reads from config.json. vLLM runs models of other types causally.
_TURNED_BY_VLLM = (*_IN_TEI, "ministral3")
_ON_CUDA_IN_TEI = ("llama", "mistral", "qwen2")
# The activations of Dense layers that vLLM supports.
_IN_VLLM = {"GELU", "Identity", "ReLU", "SiLU", "Sigmoid", "Tanh"}


@dataclass
class Reader:
    """How a server reads the export.

    Attributes:
        name: the server's name.
        refuses: the reasons why the server does not open the folder.
        differs: the reasons why the server's vectors differ from l2v's.
        conditions: the conditions under which the server's vectors are the same as l2v's.
    """

    name: str
    refuses: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if self.refuses:
            said, listed = "does not open it", self.refuses
        elif self.differs:
            said, listed = "opens it, but with other vectors", self.differs
        else:
            said, listed = "opens it with the same vectors" + (", if" if self.conditions else ""), self.conditions
        return f"**{self.name}** {said}" + "".join(f"\n- {line}" for line in listed)


def write_card(encoder: Encoder, unlike_transformers: Sequence[str]) -> str:
    """The README's text.

    Args:
        encoder: the exported encoder.
        unlike_transformers: how transformers reads the export differently from l2v, see `export_check`.
    """
    readers = (_sentence_transformers(encoder), _tei(encoder), _vllm(encoder))
    for reader in (readers[0], readers[2]):
        reader.differs += unlike_transformers
    return _CARD.format(
        base=encoder.base,
        sources=", ".join(f"`{source['name']}`" for source in encoder.provenance),
        attention=encoder.declaration.attention.value,
        pooling=encoder.pooling,
        dimensions=encoder.dimensions,
        readers="\n\n".join(map(str, readers)),
    )


def _sentence_transformers(encoder: Encoder) -> Reader:
    weighted, without = encoder.pooling == "weighted_mean", _leaves_out_instruction(encoder) and _is_llm2vec(encoder)
    own = " or ".join(f"`{_token(encoder, index)}`" for index in leading_without_weight(encoder))
    differs = {
        "its `weightedmean` numbers tokens from the special token before the text": without
        and weighted
        and encoder.tokenization.leading
    }
    counted = "; also, a space before the text must not change its token count"
    conditions = {
        "no instruction precedes the text: weights would start at the instruction": without and weighted,
        "an instruction is passed as `prompt`, and the text begins with a space: "
        '`encode([" the text"], prompt="the instruction:")`'
        + ("" if _counts_alone_as_in_row(encoder) else counted): without and not weighted,
        f"the text itself does not hold {own}": own,
        "`encode` gets `normalize_embeddings=True`": not _normalizes(encoder),
    }
    return _reader("sentence-transformers 6", encoder, {}, differs, conditions)


def _tei(encoder: Encoder) -> Reader:
    config, declared = encoder.model.config, encoder.declaration
    kind, rope = config.model_type, _rope_type(config)
    refuses = {
        f"it has no models of the type {kind}": kind not in _IN_TEI,
        "it has no `weightedmean` pooling": encoder.pooling == "weighted_mean",
        f"it does not support the rotary embeddings `{rope}` of this model": rope != "default",
        "it does not support the activation of a Dense layer": _activations(encoder.head.layers) - {"Identity", "Tanh"},
    }
    biases = kind in ("llama", "mistral") and getattr(config, "attention_bias", False)
    differs = _pooling_and_layers(encoder) | {"it leaves out the biases of the attention": biases}
    conditions = _whole_rows(encoder) | {
        "its Candle backend serves the folder: the Python backend attends causally": not encoder.causal,
        "it runs on CUDA, in float16": kind in _ON_CUDA_IN_TEI,
        f"it is started with `--default-prompt-name {declared.default_prompt_name.value}`": (
            declared.default_prompt_name.value
        ),
        f"a request sets `dimensions` to {encoder.dimensions}": declared.truncate_dim.value,
        "a request sets `truncation_direction` to `left`": encoder.tokenization.cut_left,
    }
    return _reader("text-embeddings-inference", encoder, refuses, differs, conditions)


def _vllm(encoder: Encoder) -> Reader:
    config, declared = encoder.model.config, encoder.declaration
    differs = _pooling_and_layers(encoder) | {
        f"it attends causally in models of the type {config.model_type}": not encoder.causal
        and config.model_type not in _TURNED_BY_VLLM,
        "it pools the last token instead of `weightedmean`": encoder.pooling == "weighted_mean",
        "it leaves out the Dense layers, whose activation it lacks": _activations(encoder.head.layers) - _IN_VLLM,
    }
    window = getattr(config, "sliding_window", None)
    conditions = _whole_rows(encoder) | {
        f"a text with its prompt has at most {encoder.max_length} tokens: vLLM refuses longer ones": True,
        f"its attention backend is FlashAttention, or a text with its prompt has at most {window} tokens": (
            declared.windowed and not encoder.causal
        ),
        "the client puts the prompt, even the default one, before the text": declared.prompts.value,
        "the client normalizes the vectors": not _normalizes(encoder),
        f"a request sets `dimensions` to {encoder.dimensions}": declared.truncate_dim.value,
    }
    return _reader("vLLM", encoder, {}, differs, conditions)


def _reader(
    name: str,
    encoder: Encoder,
    refuses: Mapping[str, object],
    differs: Mapping[str, object],
    conditions: Mapping[str, object],
) -> Reader:
    """A reader with the clauses that apply. Each mapping says for each clause whether the clause applies."""
    tokenization = encoder.tokenization
    differs = {
        f"it does not put the template `{encoder.template}` around a text": encoder.template != "none",
        f"it does not append `{tokenization.eos.strip()}` to a text": tokenization.eos,
        "it pools a text's first token, not the special token after the text": tokenization.trailing
        and _is_llm2vec(encoder)
        and _leaves_out_instruction(encoder),
        **differs,
    }
    cut = f"a text, instruction excluded, has at most {tokenization.doc_max_length} tokens, since l2v cuts longer ones"
    conditions = {cut: tokenization.doc_max_length < encoder.max_length, **conditions}
    return Reader(name, *([clause for clause, true in each.items() if true] for each in (refuses, differs, conditions)))


def _pooling_and_layers(encoder: Encoder) -> dict[str, object]:
    """How TEI and vLLM differ from l2v, since they pool all tokens, and apply each Dense layer after pooling."""
    layers, leading = encoder.head.layers, encoder.tokenization.leading
    return {
        "it pools the special token before the text, too": leading
        and _is_llm2vec(encoder)
        and _leaves_out_instruction(encoder),
        "it leaves out the residual or the normalization of a Dense layer": any(
            layer.config.residual or layer.config.normalized for layer in layers
        ),
        "it applies a Dense layer after pooling instead of before": _activations(encoder.head.states) - {"Identity"},
    }


def _whole_rows(encoder: Encoder) -> dict[str, object]:
    return {"the text has no prompt or instruction: those are pooled, too": _leaves_out_instruction(encoder)}


def _is_llm2vec(encoder: Encoder) -> bool:
    return encoder.declaration.semantics.value == "llm2vec"


def _normalizes(encoder: Encoder) -> bool:
    """Whether the export says that vectors are normalized."""
    return encoder.declaration.normalize.value or _is_llm2vec(encoder)


def _leaves_out_instruction(encoder: Encoder) -> bool:
    """Whether the pooling excludes the instruction's tokens, and the vector depends on that."""
    pooling, first = encoder.pooling, encoder.pooling == "bos_token" and not _is_llm2vec(encoder)
    return encoder.tokenization.skip_instruction and (pooling in ("mean", "weighted_mean") or first)


def _counts_alone_as_in_row(encoder: Encoder) -> bool:
    """Whether a text that follows an instruction and a space has the same tokens as the text alone.

    This is so if the tokenizer puts a space before each text.
    """
    texts = ("x:", "a cat", "x: a cat")
    prompt, alone, row = (encoder.tokenization.tokenizer.encode(text, add_special_tokens=False).ids for text in texts)
    return prompt + alone == row


def _rope_type(config: Any) -> str:
    """The first type of rotary embeddings, of any kind of layer, that scales positions; "default" if none does."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [each.get("rope_type", "default") for each in (rope, *rope.values()) if isinstance(each, dict)]
    return next((kind for kind in kinds if kind != "default"), "default")


def _activations(layers: Any) -> set[str]:
    return {layer.config.activation.rpartition(".")[2] for layer in layers}


def _token(encoder: Encoder, index: int) -> str:
    return str(encoder.tokenization.tokenizer.id_to_token(index))
