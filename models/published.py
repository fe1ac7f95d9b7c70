"""Short names of published stacks (base, MNTP adapter, second adapter): the built-in model and the paper's models."""

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
        gated: whether the base requires accepting a licence on the Hub.
    """

    model: str
    adapters: tuple[str, ...]
    base: str
    parameters: float
    gated: bool = False

    @property
    def memory(self) -> float:
        """Size of the weights in bfloat16, in GB."""
        return 2 * self.parameters


# Short name, the authors' name, base, parameters, gated. All are in the authors' LLM2Vec collection on the Hub.
_FAMILIES = (
    ("sheared-llama-1.3b", "Sheared-LLaMA", "princeton-nlp/Sheared-LLaMA-1.3B", 1.3, False),
    ("llama-2-7b", "Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-chat-hf", 6.7, True),
    ("mistral-7b", "Mistral-7B-Instruct-v2", "mistralai/Mistral-7B-Instruct-v0.2", 7.2, False),
    ("llama-3-8b", "Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct", 8.0, True),
    ("llama-3.1-8b", "Meta-Llama-31-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct", 8.0, True),
    ("llama-3.2-3b", "Meta-Llama-32-3B-Instruct", "meta-llama/Llama-3.2-3B-Instruct", 3.2, True),
)


def _published() -> dict[str, Stack]:
    stacks = {}
    for name, family, base, parameters, gated in _FAMILIES:
        mntp = f"McGill-NLP/LLM2Vec-{family}-mntp"
        for short, second in (("mntp", ()), ("unsupervised", ("unsup-simcse",)), ("supervised", ("supervised",))):
            adapters = tuple(f"{mntp}-{stage}" for stage in second)
            stacks[f"{name}-{short}"] = Stack(mntp, adapters, base, parameters, gated)
    return stacks


STACKS: dict[str, Stack] = {
    "demo": Stack(str(DEMO / "base"), (str(DEMO / "mntp"), str(DEMO / "contrastive")), "l2v/demo-base", 0.005),
    **_published(),
}
