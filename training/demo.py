"""Make the built-in demo stack: a tiny Llama turned into a text encoder by the three steps of LLM2Vec.

    python -m training.demo --data DIR --out models/demo              # some 20 minutes on two idle CPU cores
    python -m training.demo --data DIR --out models/demo --evaluate   # STS-B dev score of what is saved there

The service needs a checkpoint to answer with before any download; this makes one small enough to be committed, in the
layout that LLM2Vec repositories are published in: `base/` (decoder), `mntp/` and `contrastive/` (LoRA adapters).

DIR holds, gzipped (JSON lines, or one paragraph a line), with the originals at:
    text/wordnet.jsonl.gz     words, definition, examples of each synset: github.com/globalwordnet/english-wordnet
    text/wikitext2.txt.gz     paragraphs of WikiText-2, valid and test: github.com/pytorch/examples
    text/speeches.txt.gz      paragraphs of US presidents' speeches: nltk_data, state_union and inaugural
    pairs/wikisplit.jsonl.gz  sentence, split (the same in two): github.com/google-research-datasets/wiki-split
    sts/stsb-dev.jsonl.gz     a, b, score; only scored, never trained on: github.com/PhilipMay/stsb-multi-mt
The docstrings of Python's standard library are read from the interpreter that runs this, so another version of Python
makes slightly different weights; seeds are fixed otherwise.
"""

import argparse
import ast
import gzip
import json
import logging
import math
import random
import re
import shutil
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

BASE_NAME = "l2v/demo-base"
BOS, EOS, PAD = "<s>", "</s>", 1
MAX_TOKENS, BATCH = 64, 256
STAGES = {"base": 1100, "mntp": 250, "contrastive": 350}  # steps
SHARES = {"split": 1, "word": 2, "example": 2, "synonym": 1, "next": 2, "python": 1, "same": 4}  # of stage 3's batches
CONFIG = {"vocab_size": 8192, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "head_dim": 64,
          "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
          "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": PAD}  # fmt: skip
Pairs = list[tuple[str, str]]
log = logging.getLogger("demo")


def rows(path: Path) -> Iterator[Any]:
    """The lines of a gzipped file, parsed if they are JSON."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line) if ".jsonl" in path.name else line.strip()


def python_docs() -> Iterator[tuple[str, list[str]]]:
    """(name, paragraphs) of pydoc's topics and the standard library's docstrings: the technical English at hand."""
    for name, text in sorted(topics.items()):
        yield name, text.split("\n\n")
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(path.relative_to(root).parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (doc := ast.get_docstring(node)):
                yield getattr(node, "name", path.stem).strip("_").replace("_", " "), doc.split("\n\n")


def read(data: Path) -> tuple[list[str], dict[str, Pairs]]:
    """Texts for the first two stages, and pairs of texts that mean much the same, by source, for the third."""
    texts: list[str] = []
    pairs: dict[str, Pairs] = {source: [] for source in SHARES}
    for row in rows(data / "text/wordnet.jsonl.gz"):
        names, definition, examples = row["words"], row["definition"], row["examples"]
        words = ", ".join(names)
        texts.append(f"{words}: {'; '.join([definition, *examples])}")
        pairs["word"].append((words, definition))
        pairs["same"].append((definition, definition))
        for example in examples:
            pairs["example"].append((f"{words}: {definition}", example))
            for old, new in zip(names, names[1:] + names[:1], strict=True):
                swapped = re.sub(rf"\b{re.escape(old)}", new.replace("\\", r"\\"), example)
                if swapped != example:
                    pairs["synonym"].append((example, swapped))
    for row in rows(data / "pairs/wikisplit.jsonl.gz"):
        texts.append(row["sentence"])
        pairs["split"] += [(row["sentence"], " ".join(row["split"])), (row["sentence"], random.choice(row["split"]))]
    for text in chain(rows(data / "text/wikitext2.txt.gz"), rows(data / "text/speeches.txt.gz")):
        texts.append(text)
        sentences = [s for s in re.split(r"(?<=[.!?]) +", text) if s.count(" ") > 3]
        pairs["next"] += pairwise(sentences)
        pairs["same"] += [(s, s) for s in sentences]
    for name, paragraphs in python_docs():
        texts.append("\n\n".join(paragraphs))
        clean = [" ".join(p.split()) for p in paragraphs if len(p.split()) > 3]
        pairs["python"] += [(f"{name}: {p}", q) for p, q in pairwise(clean)]
        pairs["same"] += [(p, p) for p in clean]
    random.shuffle(texts)
    return texts, pairs


def train_tokenizer(texts: Iterable[str], folder: Path) -> None:
    """Byte-level BPE, so that every text has tokens; lower-cased, as 8192 entries are too few to spell words twice.
    The prefix space makes a text's tokens the same alone and after an instruction."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    size = CONFIG["vocab_size"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[BOS, EOS], initial_alphabet=alphabet)
    trainer.show_progress = False
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(f"{BOS} $A", f"{BOS} $A {BOS} $B", [(BOS, 0)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS, "pad_token": EOS,
              "add_prefix_space": True, "clean_up_tokenization_spaces": False, "padding_side": "left",
              "model_max_length": CONFIG["max_position_embeddings"]}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def blocks(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """All texts end to end, cut into rows of MAX_TOKENS that start with BOS, as every input will."""
    stream = torch.tensor(list(chain.from_iterable(e.ids for e in tokenizer.encode_batch(texts))))
    body = stream[: len(stream) // (MAX_TOKENS - 1) * (MAX_TOKENS - 1)].view(-1, MAX_TOKENS - 1)
    return functional.pad(body, (1, 0), value=CONFIG["bos_token_id"])


def load(folder: Path, *adapters: str) -> LlamaModel:
    """The saved base with the named adapters merged in that order, made bidirectional, and proved to be."""
    model = LlamaModel.from_pretrained(folder / "base", dtype=torch.float32)
    for name in adapters:
        model = PeftModel.from_pretrained(model, str(folder / name)).merge_and_unload()
    model.config.is_causal = False
    ids = torch.tensor([[0, 300, 301, 302, PAD], [0, 300, 301, 303, PAD]])
    for width in (4, 5):  # without and with padding: transformers takes different ways
        with torch.no_grad():
            first = model(ids[:, :width], attention_mask=(ids != PAD)[:, :width].long()).last_hidden_state[:, 0]
        if torch.equal(first[0], first[1]):
            raise RuntimeError("the first token does not see the last one: attention is still causal")
    return model


def embed(model: nn.Module, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Unit vectors: mean over the text's tokens, without BOS, of the hidden states after the final norm.

    Texts run in groups of like length: padding all to the longest would be three quarters of the work."""
    tokenizer.enable_truncation(MAX_TOKENS)
    ids = [torch.tensor(e.ids) for e in tokenizer.encode_batch(list(texts))]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    means = []
    for start in range(0, len(order), 64):
        group = [ids[i] for i in order[start : start + 64]]
        mask = pad_sequence([torch.ones_like(g) for g in group], batch_first=True)
        padded = pad_sequence(group, batch_first=True, padding_value=PAD)
        hidden = model(input_ids=padded, attention_mask=mask, use_cache=False).last_hidden_state.float()
        weights = mask[:, 1:, None].float()
        means.append((hidden[:, 1:] * weights).sum(1) / weights.sum(1).clamp(min=1))  # a text may have no token
    return functional.normalize(torch.cat(means)[torch.tensor(order).argsort()], dim=-1)


def fit(model: nn.Module, loss_of: Callable[[], Tensor], stage: str, lr: float) -> None:
    """AdamW with warm-up and cosine decay over the stage's steps, each a call of `loss_of`, under bf16 autocast."""
    model.train()
    steps, parameters = STAGES[stage], [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / (steps // 10), 0.5 + 0.5 * math.cos(math.pi * s / steps))
    )
    start, recent = time.monotonic(), []
    for step in range(1, steps + 1):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        recent.append(loss.item())
        if step % 50 == 0:
            log.info("%s %d/%d loss %.3f, %.0f s", stage, step, steps, np.mean(recent), time.monotonic() - start)
            recent.clear()
    model.eval()


def cycle(data: Tensor, size: int) -> Iterator[Tensor]:
    """Batches of rows, reshuffled every time round."""
    while True:
        yield from data[torch.randperm(len(data))[: len(data) // size * size]].split(size)


def train_base(out: Path, data: Tensor) -> None:
    """Stage 1, causal language modelling: the decoder that everything else starts from."""
    model, batches = LlamaForCausalLM(LlamaConfig(**CONFIG)), cycle(data, 64)

    def loss() -> Tensor:
        ids = next(batches)
        logits = model(ids[:, :-1], use_cache=False).logits
        return functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())

    fit(model, loss, "base", 3e-3)
    model.to(torch.bfloat16).save_pretrained(out / "base")
    (out / "base/generation_config.json").unlink(missing_ok=True)


def lora(model: LlamaModel, rank: int) -> PeftModel:
    """LoRA on all seven projections of every layer."""
    linears = [f"{n}_proj" for n in ("q", "k", "v", "o", "gate", "up", "down")]
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=linears))


def save_adapter(model: PeftModel, folder: Path) -> None:
    """In bf16, naming the base as a repository would: peft puts in the path that it was loaded from."""
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.target_modules = BASE_NAME, sorted(config.target_modules)
    model.to(torch.bfloat16).save_pretrained(str(folder), save_embedding_layers=False)  # True asks the Hub
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


def train_mntp(out: Path, data: Tensor, mask_id: int) -> None:
    """Stage 2, masked next token prediction: token i, hidden, is read from the logits at i - 1, as a decoder would."""
    model, batches = lora(load(out), 32), cycle(data, 64)
    head = model.get_input_embeddings().weight  # tied

    def loss() -> Tensor:
        ids = next(batches)
        chosen = (torch.rand(ids.shape) < 0.2) & (ids > 1)
        masked = torch.where(chosen & (torch.rand(ids.shape) < 0.8), mask_id, ids)
        states = model(input_ids=masked, use_cache=False).last_hidden_state[:, :-1]
        logits = states[chosen[:, 1:]] @ head.T.to(states.dtype)
        return functional.cross_entropy(logits.float(), ids[:, 1:][chosen[:, 1:]])

    fit(model, loss, "mntp", 1e-3)
    save_adapter(model, out / "mntp")
    # A published MNTP repository has the tokenizer as well, and a config that names remote code.
    config = json.loads((out / "base/config.json").read_text(encoding="utf-8"))
    config |= {"_name_or_path": BASE_NAME, "architectures": ["LlamaEncoderModel"]}
    config["auto_map"] = {"AutoModel": "modeling_llama_encoder.LlamaEncoderModel"}
    (out / "mntp/config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(out / "base" / name, out / "mntp" / name)


def train_contrastive(out: Path, tokenizer: Tokenizer, pairs: dict[str, Pairs]) -> None:
    """Stage 3, InfoNCE with in-batch negatives on the merged MNTP model. A batch holds one source of pairs only: in a
    mixed one, most negatives would be told apart by style alone."""
    model, target = lora(load(out, "mntp"), 64), torch.arange(BATCH)

    def thin(text: str) -> str:
        return " ".join(w for w in text.split() if random.random() >= 0.2) or text

    def loss() -> Tensor:
        name = random.choices(list(SHARES), list(SHARES.values()))[0]
        left, right = zip(*random.sample(pairs[name], BATCH), strict=True)
        if name == "same":  # the noise of SimCSE: a fifth of the words left out
            left, right = tuple(map(thin, left)), tuple(map(thin, right))
        a, b = embed(model, tokenizer, [*left, *right]).chunk(2)
        scores = 20 * a @ b.T
        return (functional.cross_entropy(scores, target) + functional.cross_entropy(scores.T, target)) / 2

    fit(model, loss, "contrastive", 1e-3)
    save_adapter(model, out / "contrastive")


def evaluate(model: nn.Module, tokenizer: Tokenizer, path: Path) -> float:
    """Spearman correlation of cosines, in float32, with the scores people gave; ties share their mean rank."""
    pairs = list(rows(path))
    with torch.inference_mode():
        a, b = (embed(model, tokenizer, [p[side] for p in pairs]) for side in "ab")
    ranks = []
    for values in ((a * b).sum(1).numpy(), np.array([p["score"] for p in pairs])):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((counts.cumsum() - (counts - 1) / 2)[inverse])
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def main() -> None:
    """Seeds anew at every stage, so that a stage run on its own gives what the whole run does."""
    parser = argparse.ArgumentParser(description="Make, or evaluate, the built-in demo checkpoint stack.")
    parser.add_argument("--data", type=Path, required=True, help="folder of texts, pairs and sts (see the module)")
    parser.add_argument("--out", type=Path, required=True, help="folder for base/, mntp/ and contrastive/")
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=list(STAGES), help="default: all")
    parser.add_argument("--evaluate", action="store_true", help="only score what is saved in --out")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    stages = [s for s in STAGES if s in args.stages and not args.evaluate]
    vocabulary = args.out / "base/tokenizer.json"
    if stages:
        random.seed(0)
        texts, pairs = read(args.data)
        if "base" in stages:
            train_tokenizer(texts, vocabulary.parent)
        data = blocks(Tokenizer.from_file(str(vocabulary)), texts)
    tokenizer = Tokenizer.from_file(str(vocabulary))
    for stage in stages:
        random.seed(0)
        torch.manual_seed(0)
        if stage == "base":
            train_base(args.out, data)
        elif stage == "mntp":
            train_mntp(args.out, data, tokenizer.get_vocab()["_"])  # LLM2Vec's mask for Llama
        else:
            train_contrastive(args.out, tokenizer, pairs)
    for adapters in ([], ["mntp"], ["mntp", "contrastive"]):
        score = evaluate(load(args.out, *adapters), tokenizer, args.data / "sts/stsb-dev.jsonl.gz")
        log.info("STS-B dev, %s: %.4f", " + ".join(["base", *adapters]), score)


if __name__ == "__main__":
    main()
