"""Chat templates and end-of-sequence suffixes by base model, as in the reference's `prepare_for_tokenization`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Template:
    """The strings around instruction and text.

    Attributes:
        prefix: the string before the instruction. It is pooled only if `skip_instruction` is off.
        suffix: the string after the text. It is pooled with the text.
        eos: the string at the end if the pooling is `eos_token`; None: the architecture determines it.
    """

    prefix: str = ""
    suffix: str = ""
    eos: str | None = None


TemplateName = Literal["none", "llama-3-instruct", "inst", "qwen2-instruct", "llama-3"]

TEMPLATES: dict[TemplateName, Template] = {
    "none": Template(),
    "llama-3-instruct": Template("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>", eos=""),
    "inst": Template("[INST] ", " [/INST]"),
    "qwen2-instruct": Template("<|im_start|>user\n", "<|im_end|>"),
    "llama-3": Template(eos="<|end_of_text|>"),
}

_BY_BASE: dict[str, TemplateName] = {
    "meta-llama/Meta-Llama-3-8B-Instruct": "llama-3-instruct",
    "meta-llama/Meta-Llama-3-8B": "llama-3",
    "mistralai/Mistral-7B-Instruct-v0.2": "inst",
    "meta-llama/Llama-2-7b-chat-hf": "inst",
    "Qwen/Qwen2-1.5B-Instruct": "qwen2-instruct",
    "Qwen/Qwen2-7B-Instruct": "qwen2-instruct",
}

_EOS_BY_ARCHITECTURE = {"llama": " </s>", "mistral": " </s>", "gemma": "<eos>", "qwen2": "<|endoftext|>"}


def template_for(base: str) -> TemplateName:
    """The name of the template for models that were trained from `base`, a Hub id; "none" if they use no template."""
    return _BY_BASE.get(base, "none")


def eos_for(template: Template, model_type: str) -> str:
    """The suffix for `eos_token` pooling: the template's, else the architecture's, else none."""
    return _EOS_BY_ARCHITECTURE.get(model_type, "") if template.eos is None else template.eos
