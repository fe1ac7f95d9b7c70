"""Short names of published models: the built-in one, LLM2Vec's (base, MNTP adapter, second adapter), and others."""

from dataclasses import dataclass
from pathlib import Path

DEMO = Path(__file__).parent / "demo"


@dataclass(frozen=True, slots=True)
class Stack:
    """A published model and its adapters. The docs' tables of models are generated from these fields.

    Attributes:
        model: a base model, or an LLM2Vec repository that names its base model.
        adapters: further adapters, in the order of merging.
        base: the Hub id of the base model.
        parameters: billions of parameters of the base.
        dimensions: dimensions of a vector.
        tokens: the maximum tokens of a text, as the publisher states it. The service obeys the repository's files.
        licence: the licence of the base, or of the model if it has no adapters.
        gated: whether the base requires accepting its terms on the Hub.
    """

    model: str
    adapters: tuple[str, ...]
    base: str
    parameters: float
    dimensions: int
    tokens: int
    licence: str
    gated: bool = False

    @property
    def memory(self) -> float:
        """Size of the weights in bfloat16, in GB."""
        return 2 * self.parameters


_Family = tuple[str, str, str, float, int, str, bool]
_RESEARCH = "Qwen Research, non-commercial"
_NVIDIA = "NVIDIA Open Model License and Llama 3.2"
_NON_COMMERCIAL = "NVIDIA and Llama 3.1, non-commercial"
# Columns: short name, the authors' name, base, parameters, dimensions, licence, gated. All adapters are by McGill-NLP.
_FAMILIES: tuple[_Family, ...] = (
    ("sheared-llama-1.3b", "Sheared-LLaMA", "princeton-nlp/Sheared-LLaMA-1.3B", 1.3, 2048, "Apache-2.0", False),
    ("llama-2-7b", "Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-chat-hf", 6.74, 4096, "Llama 2", True),
    ("mistral-7b", "Mistral-7B-Instruct-v2", "mistralai/Mistral-7B-Instruct-v0.2", 7.24, 4096, "Apache-2.0", True),
    ("llama-3-8b", "Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct", 8, 4096, "Llama 3", True),
    ("llama-3.1-8b", "Meta-Llama-31-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct", 8, 4096, "Llama 3.1", True),
    ("llama-3.2-3b", "Meta-Llama-32-3B-Instruct", "meta-llama/Llama-3.2-3B-Instruct", 3.21, 3072, "Llama 3.2", True),
)
# The same columns, for models without a supervised adapter.
_UNSUPERVISED_FAMILIES: tuple[_Family, ...] = (
    ("llama-3.2-1b", "Meta-Llama-32-1B-Instruct", "meta-llama/Llama-3.2-1B-Instruct", 1.24, 2048, "Llama 3.2", True),
    ("qwen2.5-0.5b", "Qwen25-05B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", 0.49, 896, "Apache-2.0", False),
    ("qwen2.5-1.5b", "Qwen25-15B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct", 1.54, 1536, "Apache-2.0", False),
    ("qwen2.5-3b", "Qwen25-3B-Instruct", "Qwen/Qwen2.5-3B-Instruct", 3.09, 2048, _RESEARCH, False),
    ("qwen2.5-7b", "Qwen25-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct", 7.61, 3584, "Apache-2.0", False),
    ("qwen3-0.6b", "Qwen3-06B", "Qwen/Qwen3-0.6B", 0.6, 1024, "Apache-2.0", False),
    ("qwen3-1.7b", "Qwen3-17B", "Qwen/Qwen3-1.7B", 1.72, 2048, "Apache-2.0", False),
    ("qwen3-4b", "Qwen3-4B", "Qwen/Qwen3-4B", 4.02, 2560, "Apache-2.0", False),
    ("qwen3-8b", "Qwen3-8B", "Qwen/Qwen3-8B", 8.19, 4096, "Apache-2.0", False),
)
# Models of other methods, served as their files declare. Columns: short name, repository, parameters, dimensions,
# tokens, licence, gated.
_MODELS: tuple[tuple[str, str, float, int, int, str, bool], ...] = (
    ("qwen3-embedding-0.6b", "Qwen/Qwen3-Embedding-0.6B", 0.6, 1024, 32768, "Apache-2.0", False),
    ("qwen3-embedding-4b", "Qwen/Qwen3-Embedding-4B", 4.02, 2560, 32768, "Apache-2.0", False),
    ("qwen3-embedding-8b", "Qwen/Qwen3-Embedding-8B", 7.57, 4096, 32768, "Apache-2.0", False),
    ("embeddinggemma-300m", "google/embeddinggemma-300m", 0.31, 768, 2048, "Gemma", True),
    ("e5-mistral-7b", "intfloat/e5-mistral-7b-instruct", 7.11, 4096, 4096, "MIT", False),
    ("nemotron-3-embed-1b", "nvidia/Nemotron-3-Embed-1B-BF16", 1.14, 2048, 32768, "OpenMDW-1.1", False),
    ("nemotron-3-embed-8b", "nvidia/Nemotron-3-Embed-8B-BF16", 7.95, 4096, 32768, "OpenMDW-1.1", False),
    ("llama-nemotron-embed-1b", "nvidia/llama-nemotron-embed-1b-v2", 1.24, 2048, 8192, _NVIDIA, False),
    ("llama-embed-nemotron-8b", "nvidia/llama-embed-nemotron-8b", 7.5, 4096, 32768, _NON_COMMERCIAL, False),
    ("pplx-embed-0.6b", "perplexity-ai/pplx-embed-v1-0.6b", 0.6, 1024, 32768, "MIT", False),
    ("pplx-embed-4b", "perplexity-ai/pplx-embed-v1-4b", 4.02, 2560, 32768, "MIT", False),
    ("voyage-4-nano", "voyageai/voyage-4-nano", 0.35, 2048, 32000, "Apache-2.0", False),
    ("bidirlm-0.6b", "BidirLM/BidirLM-0.6B-Embedding", 0.6, 1024, 512, "Apache-2.0", False),
    ("bidirlm-1.7b", "BidirLM/BidirLM-1.7B-Embedding", 1.72, 2048, 512, "Apache-2.0", False),
    ("harrier-270m", "microsoft/harrier-oss-v1-270m", 0.27, 640, 32768, "MIT", False),
    ("harrier-0.6b", "microsoft/harrier-oss-v1-0.6b", 0.6, 1024, 32768, "MIT", False),
    ("harrier-27b", "microsoft/harrier-oss-v1-27b", 27.0, 5376, 32768, "MIT", False),
)
STAGES = {"mntp": (), "unsupervised": ("unsup-simcse",), "supervised": ("supervised",)}
_TOKENS = 512  # the maximum tokens of a text, for all models of McGill-NLP


def _llm2vec() -> dict[str, Stack]:
    stacks = {}
    for name, family, base, parameters, dimensions, licence, gated in (*_FAMILIES, *_UNSUPERVISED_FAMILIES):
        mntp = f"McGill-NLP/LLM2Vec-{family}-mntp"
        unsupervised = any(name == short for short, *_ in _UNSUPERVISED_FAMILIES)
        for stage, adapters in STAGES.items():
            if stage != "supervised" or not unsupervised:
                further = tuple(f"{mntp}-{adapter}" for adapter in adapters)
                stacks[f"{name}-{stage}"] = Stack(mntp, further, base, parameters, dimensions, _TOKENS, licence, gated)
    return stacks


_DEMO = Stack(
    str(DEMO / "base"), (str(DEMO / "mntp"), str(DEMO / "contrastive")), "l2v/demo-base", 0.005, 256, _TOKENS, "MIT"
)
STACKS: dict[str, Stack] = {
    "demo": _DEMO,
    **_llm2vec(),
    **{
        name: Stack(model, (), model, parameters, dimensions, tokens, licence, gated)
        for name, model, parameters, dimensions, tokens, licence, gated in _MODELS
    },
}
