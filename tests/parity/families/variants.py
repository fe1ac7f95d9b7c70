"""A plain Llama with declarations from repositories of fine-tuned decoders, one peculiarity each.

They have the layout of sentence-transformers before 5.4; `saved.py` makes those of release 6.
"""

import dataclasses

from family import Family, sizes
from layout import Declaration, Dense, Json
from tiny_tokenizers import mistral
from transformers import LlamaModel

LENGTH = 64
# The first ends without a space, the second with one: on its own, a prompt may have other tokens than in the row.
PROMPTS = {"query": "Find the answer:", "document": "The document: "}

LLAMA: Json = {
    "architectures": ["LlamaModel"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 4096,
    "mlp_bias": False,
    "model_type": "llama",
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "use_cache": True,
    **sizes(),
}
MEAN = Declaration(pooling="mean", normalize=False, max_seq_length=LENGTH)


def variant(name: str, seed: int, declaration: Declaration, **config: object) -> Family:
    return Family(
        name=name,
        repositories=(),
        seed=seed,
        model=LlamaModel,
        config=LLAMA | config,
        tokenizer=mistral,
        attention="bidirectional" if config.get("is_causal") is False else "causal",
        declaration=declaration,
    )


def changed(**fields: object) -> Declaration:
    return dataclasses.replace(MEAN, **fields)


FAMILIES = (
    variant("old-mean", 301, MEAN),
    variant("old-lasttoken", 302, changed(pooling="lasttoken", normalize=True, similarity="dot")),
    variant("exclude-prompt-mean", 303, changed(include_prompt=False, prompts=PROMPTS)),
    variant("exclude-prompt-weightedmean", 304, changed(pooling="weightedmean", include_prompt=False, prompts=PROMPTS)),
    # Under causal attention the first state is that of <s>, the same for every text.
    variant("exclude-prompt-cls", 305, changed(pooling="cls", include_prompt=False, prompts=PROMPTS), is_causal=False),
    variant("dense-tanh", 306, changed(dense=(Dense(32, 24, True, "torch.nn.modules.activation.Tanh"),))),
    variant("default-prompt", 307, changed(prompts=PROMPTS, default_prompt="document", normalize=True)),
    variant("is-causal-false", 308, MEAN, is_causal=False),
    # The modules normalise before the vector is truncated, so the result is shorter than 1.
    variant("truncate-dim", 309, changed(normalize=True, truncate_dim=16), matryoshka_dimensions=[8, 16, 32]),
    variant("lower-case", 310, changed(lower_case=True)),
)
