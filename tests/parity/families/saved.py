"""Stacks that sentence-transformers 6 saves: modules under new names, the length in tokenizer_config.json."""

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from checkpoint import write_stack
from family import Family
from layout import Declaration
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tiny_tokenizers import TokenizerFiles, change, mistral, qwen3
from variants import LENGTH, PROMPTS, variant

# If the tokenizer has a chat template, release 6 saves `message` among the modalities and renders every text with it.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)


@dataclass(frozen=True)
class Saved:
    """One stack to save: its pooling, and the modules after it."""

    name: str
    seed: int
    pooling: str
    normalize: bool = False
    dense: int | None = None
    prompts: bool = False
    chat: bool = False
    causal: bool = True

    def tokenizer(self) -> TokenizerFiles:
        return change(qwen3(ends_row=False), chat_template=CHAT_TEMPLATE) if self.chat else mistral()

    def family(self) -> Family:
        """The family that the goldens describe."""
        declaration = Declaration(pooling=self.pooling, prompts=PROMPTS if self.prompts else {})
        return variant(self.name, self.seed, declaration, **({} if self.causal else {"is_causal": False}))


SAVED = (
    Saved("st6-mean", 401, "mean", prompts=True),
    Saved("st6-weightedmean", 402, "weightedmean"),
    Saved("st6-lasttoken", 403, "lasttoken", normalize=True, prompts=True),
    Saved("st6-cls", 404, "cls", prompts=True, causal=False),
    Saved("st6-dense", 405, "mean", dense=24, normalize=True),
    Saved("st6-chat-template", 406, "lasttoken", normalize=True, prompts=True, chat=True),
)


def save_stack(folder: Path, saved: Saved) -> None:
    """Put sentence-transformers' modules around a random decoder, and let it save them."""
    with tempfile.TemporaryDirectory(prefix="l2v-families-") as scratch:
        decoder = Path(scratch) / "decoder"
        write_stack(decoder, dataclasses.replace(saved.family(), tokenizer=saved.tokenizer, declaration=None))
        transformer = Transformer(str(decoder), model_kwargs={"dtype": torch.bfloat16})
        transformer.max_seq_length = LENGTH
        modules = [transformer, Pooling(transformer.get_embedding_dimension(), saved.pooling)]
        if saved.dense:
            torch.manual_seed(saved.seed)  # Dense draws its weights from the global generator
            modules.append(Dense(modules[-1].get_embedding_dimension(), saved.dense, bias=True))
        modules += [Normalize()] if saved.normalize else []
        model = SentenceTransformer(modules=modules, prompts=dict(PROMPTS) if saved.prompts else None, device="cpu")
        model.save_pretrained(str(folder), create_model_card=False)
    for path in folder.rglob("*"):
        if path.suffix == ".json":
            assert scratch not in path.read_text(encoding="utf-8"), path
        if path.suffix == ".safetensors":
            path.chmod(0o644)  # safetensors makes them readable for the owner only
