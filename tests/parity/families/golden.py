"""The goldens: the rows and vectors that sentence-transformers computes for a stack, and what its repository declares.

A golden is a JSON object:

- `source`: how it was made.
- `declared`: what a loader must find in the files.
- `rows`: for each text, the `request` of the caller (a `prompt_name`, a verbatim `prompt`, or neither), the literal
  prompt, the ids of the whole row, and the vector. If the prompt is not pooled, `excluded` is the number of tokens at
  the start of the row that are left out.
- `normalised`: whether the modules return vectors of length 1.
"""

import json
from pathlib import Path
from typing import Any

import sentence_transformers
import torch
import transformers
from layout import Json
from sentence_transformers import SentenceTransformer
from texts import INSTRUCTION, TEXTS, WITH_INSTRUCTION
from tokenizers import Tokenizer, normalizers

RAN_BY = (
    f"sentence-transformers {sentence_transformers.__version__}, transformers {transformers.__version__}, "
    f"torch {torch.__version__.partition('+')[0]}, float32 on the CPU, each row alone"
)


def requests(prompts: dict[str, str], default: str | None) -> list[tuple[str, Json]]:
    """(name of the text, request of the caller), in order."""
    asked = [(name, {}) for name in TEXTS]
    asked += [(name, {"prompt_name": prompt}) for prompt in prompts for name in TEXTS]
    asked += [(name, {"prompt": INSTRUCTION}) for name in WITH_INSTRUCTION]
    return asked + ([("english", {"prompt": ""})] if default else [])


def load(folder: Path) -> SentenceTransformer:
    options: dict[str, Any] = {"device": "cpu", "local_files_only": True, "model_kwargs": {"dtype": torch.float32}}
    return SentenceTransformer(str(folder), **options).eval()


def use_tokenizer_json(model: SentenceTransformer, folder: Path) -> bool:
    """Use tokenizer.json as it is, like transformers 4. Returns whether that changes the ids of a text.

    Some classes of transformers 5 rebuild the pipeline: LlamaTokenizer puts no "▁" before a text that starts with a
    space, whatever the file says.
    """
    tokenizer = model.tokenizer
    before = [tokenizer(text)["input_ids"] for text in TEXTS.values()]
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if model[0].do_lower_case:
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), backend.normalizer])
    tokenizer._tokenizer = backend
    return before != [tokenizer(text)["input_ids"] for text in TEXTS.values()]


def as_list(vector: torch.Tensor) -> list[float]:
    """The numbers to seven digits, which is what float32 holds."""
    return [float(f"{value:.7g}") for value in vector.tolist()]


def literal_prompt(model: SentenceTransformer, request: Json) -> str | None:
    if "prompt" in request:
        return request["prompt"]
    name = request.get("prompt_name", model.default_prompt_name)
    return model.prompts[name] if name else None


@torch.no_grad()
def make_row(model: SentenceTransformer, name: str, request: Json) -> Json:
    text = TEXTS[name]
    features = model.preprocess([text], prompt=literal_prompt(model, request))
    vector = model.encode(text, **request, show_progress_bar=False, convert_to_tensor=True)
    row = {
        "name": name,
        "text": text,
        "request": request,
        "prompt_name": request.get("prompt_name"),
        "prompt": literal_prompt(model, request),
        "ids": features["input_ids"][0].tolist(),
        "vector": as_list(vector),
    }
    excluded = 0 if model[1].include_prompt else features.get("prompt_length", 0)
    return row | ({"excluded": excluded} if excluded else {})


@torch.no_grad()
def check_attention(model: SentenceTransformer, attention: str, ids: list[int]) -> None:
    """A change of the last token must move the first state if and only if attention is bidirectional."""
    rows = [torch.tensor([ids]), torch.tensor([[*ids[:-1], ids[-1] - 1]])]
    first = [model[0].model(input_ids=row, attention_mask=torch.ones_like(row))[0][0, 0] for row in rows]
    moved = (first[0] - first[1]).abs().max().item()
    assert (moved > 1e-3) == (attention == "bidirectional"), f"{attention}, but the first state moves by {moved}"


def check_rows(model: SentenceTransformer, rows: list[Json]) -> None:
    """The long text must be cut, prompts must change vectors, and padding must not."""
    assert all(len(row["ids"]) == model.max_seq_length for row in rows if row["name"] == "long"), model.max_seq_length
    assert any(len(row["ids"]) < model.max_seq_length for row in rows)
    plain = {row["name"]: row["vector"] for row in rows if not row["prompt"]}
    for row in rows:
        assert not row["prompt"] or row["vector"] != plain.get(row["name"]), row
    options = {"prompt": "", "show_progress_bar": False, "convert_to_tensor": True}
    alone = torch.stack([model.encode(text, **options) for text in TEXTS.values()])
    gap = (model.encode(list(TEXTS.values()), **options) - alone).abs().max().item()
    assert gap < 1e-4, f"padding disturbs by {gap}"


def check_ids(folder: Path, rows: list[Json], limit: int, eos: int | None = None) -> None:
    """tokenizer.json alone must give the ids, apart from `eos`, a token that only tokenizer_config.json adds."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(limit - (eos is not None))
    for row in rows:
        ids = tokenizer.encode((row["prompt"] or "") + row["text"]).ids + ([] if eos is None else [eos])
        assert ids == row["ids"], (ids, row)


def declared(model: SentenceTransformer, attention: str, prompts: dict[str, str]) -> Json:
    return {
        "attention": attention,
        "pooling": model[1].pooling_mode,
        "include_prompt": model[1].include_prompt,
        "modules": [type(module).__name__ for module in model],
        "max_length": model.max_seq_length,
        "prompts": prompts,
        "default_prompt_name": model.default_prompt_name,
        "similarity": model.similarity_fn_name,
        "truncate_dim": model.truncate_dim,
    }


def make_golden(model: SentenceTransformer, attention: str, prompts: dict[str, str], source: str) -> Json:
    """The golden of a loaded model. `prompts` are the repository's prompts."""
    rows = [make_row(model, *asked) for asked in requests(prompts, model.default_prompt_name)]
    check_attention(model, attention, rows[0]["ids"])
    check_rows(model, rows)
    lengths = torch.tensor([row["vector"] for row in rows]).norm(dim=1)
    return {
        "source": f"{source} ({RAN_BY}).",
        "semantics": "sentence-transformers",
        "attention": attention,
        "pooling": model[1].pooling_mode,
        "dimensions": len(rows[0]["vector"]),
        "normalised": bool((lengths - 1).abs().max() < 1e-5),
        "declared": declared(model, attention, prompts),
        "rows": rows,
    }


def write_golden(path: Path, golden: Json) -> None:
    """Write one row per line, so that diffs are readable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({key: value for key, value in golden.items() if key != "rows"}, indent=1, ensure_ascii=False)
    rows = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in golden["rows"])
    path.write_text(f'{head[:-2]},\n "rows": [\n{rows}\n ]\n}}\n', encoding="utf-8")
