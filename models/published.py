"""Short names of published models: the built-in one, LLM2Vec's (base, MNTP adapter, second adapter), and others."""

from dataclasses import dataclass
from pathlib import Path

DEMO = Path(__file__).parent / "demo"


@dataclass(frozen=True, slots=True)
class Stack:
    """A model and its adapters.

    Attributes:
        model: a base model, or an LLM2Vec repository that names one.
        adapters: further adapters, in the order of merging.
        base: the Hub id of the base model, for the table in the docs.
        parameters: billions of parameters of the base.
        licence: the licence of the base, or of the model if it has no adapters.
        gated: whether the base requires accepting its licence on the Hub.
    """

    model: str
    adapters: tuple[str, ...]
    base: str
    parameters: float
    licence: str
    gated: bool = False

    @property
    def memory(self) -> float:
        """Size of the weights in bfloat16, in GB."""
        return 2 * self.parameters


# Short name, the authors' name, base, parameters, licence, gated; all by McGill-NLP.
_FAMILIES = (
    ("sheared-llama-1.3b", "Sheared-LLaMA", "princeton-nlp/Sheared-LLaMA-1.3B", 1.3, "Apache-2.0", False),
    ("llama-2-7b", "Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-chat-hf", 6.7, "Llama 2", True),
    ("mistral-7b", "Mistral-7B-Instruct-v2", "mistralai/Mistral-7B-Instruct-v0.2", 7.2, "Apache-2.0", False),
    ("llama-3-8b", "Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct", 8.0, "Llama 3", True),
    ("llama-3.1-8b", "Meta-Llama-31-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct", 8.0, "Llama 3.1", True),
    ("llama-3.2-3b", "Meta-Llama-32-3B-Instruct", "meta-llama/Llama-3.2-3B-Instruct", 3.2, "Llama 3.2", True),
)
# The same, without a supervised adapter.
_UNSUPERVISED_FAMILIES = (
    ("qwen2.5-7b", "Qwen25-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct", 7.6, "Apache-2.0", False),
    ("qwen3-0.6b", "Qwen3-06B", "Qwen/Qwen3-0.6B", 0.6, "Apache-2.0", False),
    ("qwen3-1.7b", "Qwen3-17B", "Qwen/Qwen3-1.7B", 1.7, "Apache-2.0", False),
    ("qwen3-4b", "Qwen3-4B", "Qwen/Qwen3-4B", 4.0, "Apache-2.0", False),
    ("qwen3-8b", "Qwen3-8B", "Qwen/Qwen3-8B", 8.2, "Apache-2.0", False),
)
_NVIDIA = "NVIDIA Open Model License"
# Short name, repository, parameters, licence, gated: models of other methods, served as their files declare.
_MODELS = (
    ("qwen3-embedding-0.6b", "Qwen/Qwen3-Embedding-0.6B", 0.6, "Apache-2.0", False),
    ("qwen3-embedding-4b", "Qwen/Qwen3-Embedding-4B", 4.0, "Apache-2.0", False),
    ("qwen3-embedding-8b", "Qwen/Qwen3-Embedding-8B", 7.6, "Apache-2.0", False),
    ("embeddinggemma-300m", "google/embeddinggemma-300m", 0.3, "Gemma", True),
    ("e5-mistral-7b", "intfloat/e5-mistral-7b-instruct", 7.1, "MIT", False),
    ("nemotron-3-embed-1b", "nvidia/Nemotron-3-Embed-1B-BF16", 1.1, "OpenMDW-1.1", False),
    ("nemotron-3-embed-8b", "nvidia/Nemotron-3-Embed-8B-BF16", 8.0, "OpenMDW-1.1", False),
    ("llama-nemotron-embed-1b", "nvidia/llama-nemotron-embed-1b-v2", 1.2, f"{_NVIDIA} and Llama 3.2", False),
    ("pplx-embed-0.6b", "perplexity-ai/pplx-embed-v1-0.6b", 0.6, "MIT", False),
    ("pplx-embed-4b", "perplexity-ai/pplx-embed-v1-4b", 4.0, "MIT", False),
    ("voyage-4-nano", "voyageai/voyage-4-nano", 0.3, "Apache-2.0", False),
    ("bidirlm-0.6b", "BidirLM/BidirLM-0.6B-Embedding", 0.6, "Apache-2.0", False),
    ("bidirlm-1.7b", "BidirLM/BidirLM-1.7B-Embedding", 1.7, "Apache-2.0", False),
    ("harrier-270m", "microsoft/harrier-oss-v1-270m", 0.3, "MIT", False),
    ("harrier-0.6b", "microsoft/harrier-oss-v1-0.6b", 0.6, "MIT", False),
    ("harrier-27b", "microsoft/harrier-oss-v1-27b", 27.0, "MIT", False),
)
STAGES = {"mntp": (), "unsupervised": ("unsup-simcse",), "supervised": ("supervised",)}


def _llm2vec() -> dict[str, Stack]:
    stacks = {}
    for name, family, base, parameters, licence, gated in (*_FAMILIES, *_UNSUPERVISED_FAMILIES):
        mntp = f"McGill-NLP/LLM2Vec-{family}-mntp"
        unsupervised = any(name == short for short, *_ in _UNSUPERVISED_FAMILIES)
        for stage, adapters in STAGES.items():
            if stage != "supervised" or not unsupervised:
                further = tuple(f"{mntp}-{adapter}" for adapter in adapters)
                stacks[f"{name}-{stage}"] = Stack(mntp, further, base, parameters, licence, gated)
    return stacks


STACKS: dict[str, Stack] = {
    "demo": Stack(str(DEMO / "base"), (str(DEMO / "mntp"), str(DEMO / "contrastive")), "l2v/demo-base", 0.005, "MIT"),
    **_llm2vec(),
    **{name: Stack(model, (), model, size, licence, gated) for name, model, size, licence, gated in _MODELS},
}
