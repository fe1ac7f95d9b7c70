"""Writes a checkpoint of `bench.shapes` as a GGUF file for llama.cpp. Runs in that library's venv.

    python bench/gguf_writer.py FOLDER FILE {bfloat16,q8_0}

llama.cpp's own converter needs torch, and refuses tokenizers that it does not know.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

_ARCHITECTURE = gguf.MODEL_ARCH.LLAMA
_TYPES = {"bfloat16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0}


def write(folder: Path, file: Path, dtype: str) -> None:
    """Write the matrices in `dtype` and the norms in float32, for mean pooling and bidirectional attention."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[_ARCHITECTURE])
    _add_config(writer, config)
    _add_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")), config)
    names = gguf.get_tensor_name_map(_ARCHITECTURE, config["num_hidden_layers"])
    for name, bits in _tensors(folder):
        target = names.get_name(f"model.{name}", (".weight",))
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        kind = _TYPES[dtype] if bits.ndim > 1 else gguf.GGMLQuantizationType.F32
        data = _interleave(bits, config[heads]) if heads else bits
        writer.add_tensor(target, gguf.quantize(_float32(data), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_config(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    """Add the byte-level BPE; its lower case and first blank, which GGUF has no field for, are up to the caller."""
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    known = {number: token for token, number in tokenizer["model"]["vocab"].items()} | special
    numbers = range(config["vocab_size"])
    kinds = [
        gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL if number in known
        else gguf.TokenType.UNUSED
        for number in numbers
    ]  # fmt: skip
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([known.get(number, f"[unused{number}]") for number in numbers])
    writer.add_token_types(kinds)
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def _tensors(folder: Path) -> Iterator[tuple[str, NDArray[np.uint16]]]:
    """The names and bits of the bfloat16 tensors in the folder's safetensors files."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            if entry["dtype"] != "BF16":
                raise ValueError(f"{name} of {path} is in {entry['dtype']}: only bfloat16 checkpoints can be written")
            offset = 8 + size + entry["data_offsets"][0]
            yield name, np.memmap(path, np.uint16, "r", offset, tuple(entry["shape"]))


def _interleave(weight: NDArray[np.uint16], heads: int) -> NDArray[np.uint16]:
    """Reorder the rows of each head from transformers' rotary embedding (halves) to llama.cpp's (pairs)."""
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
