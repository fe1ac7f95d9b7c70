"""Checks whether transformers, on which sentence-transformers and vLLM build, reads an export as l2v does."""

from array import array
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from l2v.models.batch import Batch
from l2v.models.encoder import Encoder
from l2v.models.errors import first_line
from l2v.models.forward import hidden_states
from l2v.models.quiet import quiet
from l2v.models.types import Encoding

_TEXT = "the cat sits on the mat, and a dog runs in the park"
_TEXTS = (_TEXT, "  two blanks before,  and within", "line\nbreaks\n\nand\ttabs ", "Ünïcödé, 日本語, 🙂", "42 + 7")
# Minimum cosine between l2v's and transformers' states of a token, in float32 and in other dtypes. Wrong attention
# gives a much lower cosine.
_MIN_COSINE_FLOAT32, _MIN_COSINE = 0.9999, 0.98
# If the model has a sliding window, the text is repeated until it exceeds the window by _BEYOND tokens, up to at most
# _MAX_TOKENS.
_BEYOND, _MAX_TOKENS = 8, 1024


@torch.inference_mode()
def differences(encoder: Encoder, folder: Path) -> list[str]:
    """How transformers reads an export differently from l2v, as clauses; empty if ids and hidden states are the same.

    Args:
        encoder: the encoder.
        folder: the encoder's export.
    """
    with quiet():
        return [clause for clause in (_tokenizer(encoder, folder), _states(encoder, folder)) if clause]


def _tokenizer(encoder: Encoder, folder: Path) -> str:
    try:
        theirs, ours = AutoTokenizer.from_pretrained(folder, local_files_only=True), encoder.tokenization.tokenizer
        special = [token.content for token in ours.get_added_tokens_decoder().values()]
        for text in (*_TEXTS, *(f"a {token} b{token}" for token in special)):
            if theirs(text)["input_ids"] != ours.encode(text).ids:
                return f"transformers gives the text {text!r} other token ids"
    except Exception as error:  # transformers raises errors of any class
        return f"transformers cannot open the tokenizer ({first_line(error)})"
    return ""


def _states(encoder: Encoder, folder: Path) -> str:
    ids = encoder.tokenization.tokenizer.encode(_TEXT).ids
    window = getattr(encoder.model.config, "sliding_window", None)
    if window and encoder.declaration.windowed:
        length = min(window + _BEYOND, _MAX_TOKENS)
        ids = (ids * (1 + length // len(ids)))[: max(length, len(ids))]
    ids = ids[: encoder.max_length]
    batch = Batch.pack([Encoding(array("q", ids), len(ids))], encoder.device)
    ours = hidden_states(encoder.model, batch, causal=encoder.causal, windowed=encoder.declaration.windowed)
    try:
        # On the CPU, since a GPU may not have room for a second model.
        model = AutoModel.from_pretrained(folder, dtype=encoder.model.dtype, local_files_only=True).eval()
        theirs = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    except Exception as error:  # transformers raises errors of any class
        return f"transformers cannot run the model ({first_line(error)})"
    cosine = torch.nn.functional.cosine_similarity(ours.cpu().float(), theirs.float(), dim=-1).min().item()
    least = _MIN_COSINE_FLOAT32 if encoder.dtype == "float32" else _MIN_COSINE
    return "" if cosine >= least else f"transformers computes other hidden states (cosine {cosine:.4f})"
