"""The service: tokenize, schedule, postprocess."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from l2v.app import __version__
from l2v.app.engine import vectors
from l2v.app.engine.dimensions import choose_dimensions
from l2v.app.engine.errors import InternalError
from l2v.app.engine.inputs import EmbeddedGroup, InputGroup, estimate_tokens, param_at
from l2v.app.engine.jobs import EncodingFailedError
from l2v.app.engine.lifecycle import Lifecycle
from l2v.app.engine.output_types import Numbers, OutputDtype
from l2v.app.engine.prompts import Prompts
from l2v.app.engine.protocol import Adapters, Engine
from l2v.app.engine.served_models import ServedModel, ServedModels
from l2v.app.engine.timings import Timings
from l2v.app.engine.tokenization import TokenizerPool, truncated
from l2v.app.engine.usage import Usage
from l2v.app.engine.vectors import Rows, Vectors
from l2v.app.metrics import Metrics
from l2v.app.settings import Settings
from l2v.models.types import Encoding, Metric

P = ParamSpec("P")
T = TypeVar("T")

# The names of the settings that `/info` lists as the limits of a request.
_LIMITS = ("max_inputs", "max_characters", "max_body_bytes", "max_header_bytes", "max_requests", "max_queue_tokens")
# The names of the properties that `/info` lists for each model.
_PROPERTIES = (
    "model",
    "sources",
    "adapter",
    "dimensions",
    "pooling",
    "template",
    "max_length",
    "doc_max_length",
    "skip_instruction",
    "settings",
    "left_out",
)
# Up to this many numbers, computing inline is faster than handing off to a thread.
_INLINE_NUMBERS = 32_768


class Service(Lifecycle):
    """Embeds the inputs of requests, within limits.

    Attributes:
        models: the models that requests can choose.
        prompts: the named prompts of the base; until the base is loaded, the prompts from the settings.
        adapters: loads and unloads adapters while the service runs; None until the encoder is loaded.
        max_batch_tokens: the token budget of a forward pass; 0 until the encoder is loaded.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, usage: Usage | None = None, models: ServedModels | None = None
    ) -> None:
        super().__init__(settings, metrics, usage or Usage())
        self.models = models or ServedModels(settings)
        self.prompts = Prompts(settings.read_prompts())
        self.tokenizers = TokenizerPool(settings)
        self.started = int(time.time())
        self.max_batch_tokens = 0
        self.adapters: Adapters | None = None
        for name in self.models.labels:
            metrics.start_model(name)

    def open(
        self, models: Sequence[ServedModel], max_batch_tokens: int, engine: Engine, adapters: "Adapters | None"
    ) -> None:
        """Starts to accept requests.

        Args:
            models: the base, then the adapters on top of it.
            max_batch_tokens: the token budget of a forward pass.
            engine: runs the jobs of requests.
            adapters: loads and unloads adapters.
        """
        self.models.open(models)
        self.prompts, self.max_batch_tokens = models[0].prompts, max_batch_tokens
        self.adapters, self.engine = adapters, engine

    def info(self) -> dict[str, Any]:
        """The content of `/info`: the properties of the base, the limits of a request, and all models."""
        limits = {name: getattr(self.settings, name) for name in _LIMITS}
        described = [model.describe() for model in self.models]
        models = [{key: each[key] for key in _PROPERTIES if key in each} for each in described]
        base = self.models.find().describe()
        return {"model": self.models.base_name, "version": __version__, **base, "limits": limits, "models": models}

    async def embed(
        self,
        model: ServedModel,
        group: InputGroup,
        timings: Timings,
        *,
        truncate: bool,
        dimensions: int | None,
        normalize: bool,
        dtype: OutputDtype = "float",
        reserve: Callable[[int], None] = lambda dimensions: None,
    ) -> tuple[Numbers, EmbeddedGroup]:
        """Embeds a group of inputs.

        Args:
            model: the model to use.
            group: the inputs.
            timings: records the stages.
            truncate: whether to truncate texts that are too long rather than reject them.
            dimensions: the number of leading dimensions to keep; None means the model's default.
            normalize: whether to scale each vector to length 1 after truncating it. This argument has no effect if
                `dtype` is an integer type.
            dtype: the type of the numbers in the returned vectors.
            reserve: reserves memory for the response. It is called with the number of dimensions before any work is
                done, and raises a `ServiceError` to reject the request.

        Returns:
            The postprocessed embeddings, [n, dimensions] or (packed) [n, dimensions / 8], and the embedded group.

        Raises:
            ServiceError: the request is rejected, or fails.
        """
        width = choose_dimensions(model.profile.declaration, model.profile.width, dimensions, dtype)
        self.tokenizers.check_sizes([group])
        reserve(width)
        (embedded,) = await self._embed(model, [group], truncate, timings)
        with timings.stage("finish"):
            return await self.postprocess(model, embedded.rows, width, normalize, dtype), embedded

    async def postprocess(
        self, model: ServedModel, rows: Sequence[Vectors], dimensions: int | None, normalize: bool, dtype: OutputDtype
    ) -> Numbers:
        """Converts the rows of an embedded group to the numbers that `embed` returns."""
        scale = model.profile.declaration.int8_scale.value
        return await _compute(rows, vectors.postprocess, rows, dimensions, normalize, dtype, scale)

    async def similarity(
        self,
        model: ServedModel,
        groups: Sequence[InputGroup],
        timings: Timings,
        *,
        truncate: bool,
        metric: Metric | None = None,
        reserve: Callable[[], None] = lambda: None,
    ) -> tuple[Vectors, list[EmbeddedGroup]]:
        """Returns the [q, n] similarities of the first group's inputs to the last group's, and the embedded groups.

        Args:
            model: the model to use.
            groups: one or two groups of inputs; a single group is compared with itself.
            timings: records the stages.
            truncate: see `embed`.
            metric: how to compare the vectors; None means the model's default.
            reserve: reserves memory for the response. It is called before any work is done, and raises as in `embed`.
        """
        profile, declared = model.profile, model.profile.declaration
        self.tokenizers.check_sizes(groups)
        reserve()
        embedded = await self._embed(model, groups, truncate, timings)
        sides = embedded[0].rows, embedded[-1].rows
        arguments = (*sides, metric or declared.similarity.value, profile.dimensions)
        with timings.stage("finish"):
            rows = [*sides[0], *sides[1]]
            matrix = await _compute(rows, vectors.similarity, *arguments, normalized=declared.normalize.value)
        return matrix, embedded

    async def tokenize(
        self, model: ServedModel, group: InputGroup, timings: Timings, *, truncate: bool
    ) -> list[Encoding]:
        """Tokenizes the inputs exactly as `embed` does, and raises the same errors."""
        self.tokenizers.check_sizes([group])
        (encodings,) = await self._encode(model, [group], truncate, timings)
        return encodings

    async def token_states(
        self,
        model: ServedModel,
        group: InputGroup,
        timings: Timings,
        *,
        truncate: bool,
        reserve: Callable[[int, int], None],
    ) -> Sequence[Vectors]:
        """The hidden states of all tokens of each input, [tokens, d]. It raises the same errors as `embed`.

        `reserve` reserves memory for the response. It is called with the number of tokens and with d before the forward
        pass, and raises a `ServiceError` to reject the request.
        """
        self.tokenizers.check_sizes([group])
        (embedded,) = await self._embed(model, [group], truncate, timings, reserve)
        return embedded.rows

    async def _embed(
        self,
        model: ServedModel,
        groups: Sequence[InputGroup],
        truncate: bool,
        timings: Timings,
        reserve_states: Callable[[int, int], None] | None = None,
    ) -> list[EmbeddedGroup]:
        """Embeds all groups of a request as one job; with `reserve_states`, returns the states of all tokens."""
        assert self.engine is not None  # `admit` has checked the state
        # The states of all tokens must fit into one batch.
        limit = self.max_batch_tokens if reserve_states else None
        with self.models.using(model):
            encodings = await self._encode(model, groups, truncate, timings, limit)
            job = [encoding for group in encodings for encoding in group]
            self.metrics.inputs.labels(model.label).inc(len(job))
            self.metrics.tokens.labels(model.label).inc(sum(map(len, job)))
            self.metrics.truncated.labels(model.label).inc(len(truncated(job)))
            if reserve_states:
                reserve_states(sum(map(len, job)), model.profile.state_width)
                job = [replace(encoding, pooled=0) for encoding in job]  # 0 asks for the states of all tokens
            submitted = time.time()
            try:
                result = await asyncio.wrap_future(self.engine.submit(job))
            except EncodingFailedError as error:
                raise InternalError(str(error), param_at(groups, error.position, "text")) from error
        timings.add("queue", submitted, result.queued)
        timings.add("forward", submitted + result.queued, result.computed)
        rows = iter(result.vectors)
        return [
            EmbeddedGroup([next(rows) for _ in group], [len(encoding) for encoding in group], truncated(group))
            for group in encodings
        ]

    async def _encode(
        self,
        model: ServedModel,
        groups: Sequence[InputGroup],
        truncate: bool,
        timings: Timings,
        max_tokens: int | None = None,
    ) -> list[list[Encoding]]:
        assert self.engine is not None  # `admit` has checked the state
        estimate = estimate_tokens(groups, model.profile.tokenization.max_length)
        with timings.stage("tokenize"), self.engine.reserve(estimate):
            return await self.tokenizers.encode(model, groups, truncate=truncate, max_tokens=max_tokens)


async def _compute(rows: Rows, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls `function`, in a thread if the rows hold many numbers."""
    if sum(row.size for row in rows) <= _INLINE_NUMBERS:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
