"""The spine: admit → tokenize → schedule → finish."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import torch

from l2v.app import __version__
from l2v.app.engine.inputs import Embedded, Side, about_tokens, param_at, split, unpooled
from l2v.app.engine.jobs import EncodingFailedError, Vectors
from l2v.app.engine.scheduler import Scheduler
from l2v.app.engine.tokenization import Tokenizers
from l2v.app.http.errors import (
    InternalError,
    InvalidError,
    OverloadedError,
    TooLargeError,
    TooLongError,
    UnavailableError,
)
from l2v.app.http.telemetry import Metrics, Timings
from l2v.app.settings import Settings
from l2v.models import Encoder, Encoding
from l2v.models.sources import label

_WATCH_SECONDS = 0.25
# What the engine thread may still take once nobody waits for it.
_JOIN_SECONDS = 1.0


class State(StrEnum):
    """Where the service stands; only `READY` takes work."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DOWN = "down"


class Service:
    """Takes inputs to vectors, or says why not.

    Attributes:
        max_batch_tokens: the budget of one forward pass, once there is an encoder.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.model = label(settings.model)
        self.prompts = settings.read_prompts()
        self._encoder: Encoder | None = None
        self._scheduler: Scheduler | None = None
        self._draining = False
        self.started = int(time.time())
        self.max_batch_tokens = 0
        self.tokenizers = Tokenizers()
        self._permits = settings.max_requests
        metrics.engine_up.set_function(lambda: float(self._scheduler is not None and not self._scheduler.failure))
        metrics.queue_tokens.set_function(lambda: self._scheduler.queue_tokens if self._scheduler else 0)
        metrics.queue_inputs.set_function(lambda: self._scheduler.queue_inputs if self._scheduler else 0)

    @property
    def state(self) -> State:
        if self._scheduler is None:
            return State.DRAINING if self._draining else State.LOADING
        if self._scheduler.failure:
            return State.DOWN
        return State.DRAINING if self._draining else State.READY

    @property
    def encoder(self) -> Encoder:
        """The encoder; raises `UnavailableError` while it loads."""
        if self._encoder is None:
            raise UnavailableError("the model is loading")
        return self._encoder

    def start(self, encoder: Encoder) -> None:
        """Warms the encoder up and opens the service."""
        self.prompts.check(encoder)
        # In this thread, so that what fails fails by its own name; the engine thread takes over after it.
        self.max_batch_tokens = encoder.warm_up(self.settings.max_batch_tokens)
        scheduler = Scheduler(
            encoder.forward,
            self.max_batch_tokens,
            self.settings.max_queue_tokens,
            self.settings.engine_timeout,
            self.metrics,
        )
        self.metrics.model_info.labels(self.model, encoder.dtype, str(encoder.device), __version__).set(1)
        self.metrics.memory.labels("weights").set(encoder.weight_bytes)
        if encoder.device.type == "cuda":
            self.metrics.memory.labels("allocated").set_function(lambda: torch.cuda.memory_allocated(encoder.device))
            self.metrics.memory.labels("reserved").set_function(lambda: torch.cuda.memory_reserved(encoder.device))
        self._encoder, self._scheduler = encoder, scheduler

    @property
    def in_house(self) -> int:
        """Requests that are being served."""
        return self.settings.max_requests - self._permits

    def drain(self) -> None:
        """From now on new requests are refused; those in the house are finished."""
        self._draining = True

    async def wait_down(self) -> str:
        """Returns when the engine is down, with the reason, having answered what waited for it."""
        while self._scheduler is None or (failure := self._scheduler.failure) is None:  # noqa: ASYNC110
            await asyncio.sleep(_WATCH_SECONDS)  # a hang makes no event that one could wait for
        self._scheduler.give_up(failure)
        return failure

    def close(self) -> None:
        """Ends the engine thread; what was to be finished is so by now."""
        self.drain()
        if self._scheduler is not None:
            self._scheduler.close(_JOIN_SECONDS)
        self.tokenizers.close()

    async def embed(
        self, sides: Sequence[Side], truncate: bool, timings: Timings, *, pooled: bool = True
    ) -> list[Embedded]:
        """Embeds all sides of a request as one job.

        Args:
            sides: the lists of inputs.
            truncate: shorten what is too long rather than refuse it.
            timings: where the stages are recorded.
            pooled: give one vector an input; else the states of all its tokens.

        Raises:
            ServiceError: any of the table but the bugs.
        """
        self.check_sizes(sides)
        assert self._scheduler is not None  # the state was checked on entry
        with timings.stage("tokenize"), self._scheduler.expect(about_tokens(sides, self.encoder.max_length)):
            encodings = [await self._tokenize(side, truncate) for side in sides]
        if not pooled:
            encodings = unpooled(encodings, self.max_batch_tokens, sides[0].name)
        try:
            rows = await self._schedule([e for side in encodings for e in side], timings)
        except EncodingFailedError as error:
            raise InternalError(str(error), param_at(sides, error.place)) from error
        return split(encodings, rows)

    def check_dimensions(self, dimensions: int | None) -> None:
        """Raises `InvalidError` for more dimensions than the model has."""
        available = self.encoder.dimensions
        if dimensions is not None and dimensions > available:
            raise InvalidError(f"must be at most {available}, the dimensions of the model", "dimensions")

    def info(self) -> dict[str, Any]:
        """What is served and within which limits."""
        encoder, settings = self.encoder, self.settings
        return {
            "model": self.model,
            "version": __version__,
            **encoder.describe(),
            "limits": {
                name: getattr(settings, name)
                for name in (
                    *("max_inputs", "max_characters", "max_body_bytes", "max_header_bytes"),
                    *("max_requests", "max_queue_tokens"),
                )
            },
        }

    def check_open(self) -> None:
        """Raises `UnavailableError` unless requests are taken."""
        match self.state:
            case State.LOADING:
                raise UnavailableError("the model is loading")
            case State.DRAINING:
                # So that the client's next request finds another process.
                raise UnavailableError("the service is shutting down", headers={"Connection": "close"})
            case State.DOWN:
                raise UnavailableError("the engine is down", headers={"Connection": "close"})

    def check_count(self, count: int, names: Sequence[str]) -> None:
        """Raises `TooLargeError` for too many inputs of the fields so named."""
        if count > (most := self.settings.max_inputs):
            together = f" in {' and '.join(names)}" if len(names) > 1 else ""
            raise TooLargeError(f"{count} inputs{together}, at most {most} (max_inputs)", names[0])

    def check_sizes(self, sides: Sequence[Side]) -> None:
        """Raises `TooLargeError` for too many inputs, `InvalidError` for one too long."""
        limits = self.settings
        self.check_count(sum(len(side.inputs) for side in sides), [side.name for side in sides])
        for side in sides:
            for index, input_ in enumerate(side.inputs):
                for field in ("text", "instruction"):
                    if (length := len(getattr(input_, field))) > limits.max_characters:
                        raise InvalidError(
                            f"{field} has {length} characters, at most {limits.max_characters} (max_characters)",
                            side.param(index, field),
                        )

    @contextmanager
    def admit(self) -> Iterator[None]:
        """One of the permits, so that what is in the house is bounded before any work is done for it.

        Raises:
            OverloadedError: if none is left.
            UnavailableError: unless requests are taken.
        """
        self.check_open()
        if self._scheduler is not None:
            self._scheduler.check_room()
        if self._permits == 0:
            self.metrics.rejected.labels("requests").inc()
            raise OverloadedError(f"{self.settings.max_requests} requests are being served (max_requests)")
        self._permits -= 1
        try:
            yield
        finally:
            self._permits += 1

    async def _tokenize(self, side: Side, truncate: bool) -> list[Encoding]:
        encodings = await self.tokenizers.tokenize(self.encoder, side)
        cut = [index for index, encoding in enumerate(encodings) if encoding.truncated]
        if cut and not truncate:
            raise TooLongError(
                f"text has more than {self.encoder.tokenization.doc_max_length} tokens (doc_max_length), or more than "
                f"{self.encoder.max_length} with its instruction (max_length), and truncate is false",
                side.param(cut[0], "text"),
            )
        self.metrics.inputs.inc(len(encodings))
        self.metrics.tokens.inc(sum(map(len, encodings)))
        self.metrics.truncated.inc(len(cut))
        return encodings

    async def _schedule(self, encodings: list[Encoding], timings: Timings) -> list[Vectors]:
        assert self._scheduler is not None
        submitted = time.time()
        result = await asyncio.wrap_future(self._scheduler.submit(encodings))
        timings.add("queue", submitted, result.queued)
        timings.add("forward", submitted + result.queued, result.computed)
        return result.vectors
