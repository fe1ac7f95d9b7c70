"""Embeds rows with an encoder in this process."""

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from l2v.app.bulk.embedders import EmbeddedRows
from l2v.app.bulk.errors import CommandError
from l2v.app.bulk.options import EmbedOptions
from l2v.app.bulk.rows import BadRow, Row
from l2v.app.engine.dimensions import dimensions_warning
from l2v.app.engine.profile import Profile
from l2v.app.engine.prompts import Prompts
from l2v.app.engine.vectors import Vectors, postprocess
from l2v.models import Encoder, Encoding, Input, InputError
from l2v.models.batch import batches
from l2v.models.errors import first_line
from l2v.models.faults import Fault

# One thread tokenizes a batch while the other thread runs the model.
_THREADS = 2


class LocalEmbedder:
    """Embeds rows in forward passes of at most `max_batch_tokens` tokens.

    Attributes:
        encoder: the encoder.
        prompts: the encoder's named prompts.
        warning: see `Embedder`.
    """

    window = _THREADS + 1

    def __init__(self, encoder: Encoder, model: str, options: EmbedOptions, max_batch_tokens: int) -> None:
        profile = Profile.of(encoder)
        self._dimensions = options.check(profile.declaration, profile.width)
        self.warning = dimensions_warning(profile.declaration, profile.width, options.dimensions)
        self.encoder, self.prompts = encoder, Prompts.of(profile)
        self._instruction = self.prompts.default() if options.instruction is None else options.instruction
        if options.prompt_name is not None:
            self._instruction = self.prompts.by_name[options.prompt_name]
        self.info = {"model": model, **profile.description}
        self._options, self._budget = options, max_batch_tokens
        self._model_lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="embed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped.set()
        # On Ctrl-C, don't wait for a forward pass, since its result is not needed.
        self._threads.shutdown(wait=kind is not KeyboardInterrupt, cancel_futures=True)

    def submit(self, rows: Sequence[Row]) -> "Future[EmbeddedRows]":
        return self._threads.submit(self._embed, rows)

    def encode(self, rows: Sequence[Row]) -> EmbeddedRows:
        """Embeds rows. Their vectors have all dimensions of the model, and are not normalized."""
        rows, encodings, bad = self._tokenize(rows)
        vectors = np.zeros((len(rows), self.encoder.width), np.float32)
        with self._model_lock:
            start = 0
            for pack in batches(encodings, self._budget):
                if self._stopped.is_set():
                    raise CancelledError
                vectors[start : start + len(pack)] = self._forward(pack)
                start += len(pack)
        finite: NDArray[np.bool_] = np.all(np.isfinite(vectors), axis=1)
        bad += [row.bad("its vector is not finite") for row, fine in zip(rows, finite, strict=True) if not fine]
        tokens = sum(len(encoding) for encoding, fine in zip(encodings, finite, strict=True) if fine)
        good = [row for row, fine in zip(rows, finite, strict=True) if fine]
        return EmbeddedRows(good, vectors[finite], bad, tokens)

    def _embed(self, rows: Sequence[Row]) -> EmbeddedRows:
        scale, options, encoded = self.encoder.declaration.int8_scale.value, self._options, self.encode(rows)
        made = postprocess(encoded.vectors, self._dimensions, options.normalize, options.output_dtype, scale)
        return replace(encoded, vectors=made)

    def _forward(self, pack: list[Encoding]) -> list[Vectors]:
        try:
            return self.encoder.forward(pack)
        except Exception as error:
            size = f"a batch of {sum(map(len, pack))} tokens"
            if Fault.of(error) is Fault.OUT_OF_MEMORY:
                raise CommandError(f"{size} does not fit into memory: lower --max-batch-tokens") from None
            raise CommandError(f"the model failed on {size}: {first_line(error)}") from error

    def _tokenize(self, rows: Sequence[Row]) -> tuple[list[Row], list[Encoding], list[BadRow]]:
        """Tokenize the rows. Returns the good rows, their encodings, and the bad rows."""
        good, bad = list(rows), list[BadRow]()
        default = self._instruction
        while True:
            try:
                inputs = [Input(row.text, default if row.instruction is None else row.instruction) for row in good]
                return good, self.encoder.tokenize(inputs) if good else [], bad
            except InputError as error:
                if error.field == "instruction" and good[error.index].instruction is None:
                    raise CommandError(f"--instruction: {error}") from None
                bad.append(good.pop(error.index).bad(str(error)))
