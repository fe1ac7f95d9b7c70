"""Checkpoints with random weights, in the shapes of published models: speed does not depend on the weights' values."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModel, LlamaConfig, MistralConfig, PreTrainedConfig

from bench.workloads import Workload
from l2v.models import Input, checksums, load
from l2v.models.export import export
from l2v.models.templates import TEMPLATES
from l2v.models.tokenization import Tokenization

_TOKENIZER = Path(__file__).parents[1] / "models/demo/base"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Shape:
    """The dimensions of a decoder.

    Attributes:
        config: of the decoder.
        texts: texts per round by workload, chosen so that the slowest engine needs a minute or two.
        on_gpu: factor for the number of texts on a GPU.
    """

    name: str
    config: PreTrainedConfig
    texts: dict[str, int]
    on_gpu: int = 1

    def write(self, folder: Path) -> Path:
        """Write a bfloat16 export of such a decoder, which all engines can read, unless it exists already."""
        target = folder / self.name
        if target.is_dir():
            return target
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            base, export_folder = Path(part) / "base", Path(part) / "export"
            self.write_base(base)
            # Texts of 512 tokens must not be cut at 400.
            export(load(str(base), dtype="bfloat16", device="cpu", doc_max_length=512, prepack=False), export_folder)
            self._for_old_libraries(export_folder)
            return export_folder.rename(target)

    def write_base(self, folder: Path) -> None:
        """Write a bfloat16 checkpoint of such a decoder, as transformers saves it."""
        # A CPU takes minutes to draw billions of random numbers.
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            AutoModel.from_config(self.config, dtype=torch.bfloat16).save_pretrained(folder)
        torch.cuda.empty_cache()
        for name in _TOKENIZER_FILES:
            shutil.copyfile(_TOKENIZER / name, folder / name)

    def _for_old_libraries(self, folder: Path) -> None:
        """Rewrite the tokenizer for transformers 4 and tokenizers 0.19."""
        # They need a class that they know, no token types, and merges as strings.
        config = json.loads((_TOKENIZER / "tokenizer_config.json").read_text(encoding="utf-8"))
        config["model_input_names"] = ["input_ids", "attention_mask"]
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
        checksums.write(folder)

    def lengths(self, folder: Path, task: Workload) -> list[int]:
        """Our engine's token count of each text."""
        tokenization = Tokenization(
            tokenizer=Tokenizer.from_file(str(folder / "tokenizer.json")), template=TEMPLATES["none"], eos="",
            max_length=512, doc_max_length=512, skip_instruction=True,
        )  # fmt: skip
        return [len(encoding) for encoding in tokenization([Input(text, task.instruction) for text in task.texts])]


def _llama(hidden: int, layers: int, heads: int, key_heads: int, inner: int, vocabulary: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=key_heads,
        intermediate_size=inner, vocab_size=vocabulary, max_position_embeddings=2048,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip


_MISTRAL = MistralConfig(
    hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336,
    vocab_size=32000, sliding_window=None, bos_token_id=0, eos_token_id=1, pad_token_id=1,
)  # fmt: skip

SHAPES = {
    shape.name: shape
    for shape in (
        Shape("135m", _llama(576, 30, 9, 3, 1536, 49152), {"mixed": 256, "queries": 256, "long": 32}, 32),
        Shape("1.3b", _llama(2048, 24, 16, 16, 5504, 32000), {"mixed": 64, "queries": 64, "long": 8}, 32),
        Shape("7b", _MISTRAL, {"mixed": 1024, "queries": 1024, "long": 128}),
    )
}
