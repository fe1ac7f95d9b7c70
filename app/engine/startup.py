"""Loads the encoder, and opens the service. This module imports torch."""

import logging
from typing import TYPE_CHECKING

import torch

from l2v.app.engine.freezing import freeze
from l2v.app.engine.profile import Profile
from l2v.app.engine.prompts import Prompts
from l2v.app.engine.runtime_adapters import RuntimeAdapters
from l2v.app.engine.scheduler import Scheduler
from l2v.app.engine.served_models import ServedModel
from l2v.app.engine.service import Service
from l2v.app.logs import READY
from l2v.models.errors import ModelError
from l2v.models.warm_up import warm_up

if TYPE_CHECKING:
    from l2v.models.encoder import Encoder

logger = logging.getLogger(__name__)


def load_and_start(service: Service, encoder: "Encoder | None") -> None:
    """Starts the service with `encoder`, or loads the encoder that the settings name. Raises `ModelError`."""
    settings = service.settings
    encoder = encoder or settings.load(prepack=not settings.compile)
    freeze()
    start(service, encoder)
    logging.getLogger(READY).info("ready", extra={"model": service.models.base_name, "url": settings.url})
    if settings.compile:
        _compile(encoder)


def start(service: Service, encoder: "Encoder") -> None:
    """Warms up the encoder and opens the service. Raises `ModelError` if a prompt leaves no tokens for a text."""
    settings, metrics, profile = service.settings, service.metrics, Profile.of(encoder)
    name, sources = service.models.base_name, service.models.sources
    base = ServedModel(name, sources[name], profile, Prompts.of(profile, service.prompts.by_name), name)
    adapters = RuntimeAdapters(service, encoder, base)
    modules = encoder.adapters.modules.values()
    models = [base, *(adapters.served(each, sources.get(each.name, each.source["name"])) for each in modules)]
    if notice := encoder.declaration.notice:
        logger.warning(notice)
    # Warm up in this thread, so that errors propagate unchanged; the engine thread takes over afterwards.
    max_batch_tokens = warm_up(encoder, settings.max_batch_tokens)
    limits = (max_batch_tokens, settings.max_queue_tokens, settings.engine_timeout)
    scheduler = Scheduler(encoder.forward, *limits, metrics)
    for model in models:
        adapters.describe(model)
    metrics.memory.labels("weights").set(encoder.weight_bytes)
    if encoder.device.type == "cuda":
        metrics.memory.labels("allocated").set_function(lambda: torch.cuda.memory_allocated(encoder.device))
        metrics.memory.labels("reserved").set_function(lambda: torch.cuda.memory_reserved(encoder.device))
    service.open(models, max_batch_tokens, scheduler, adapters)


def _compile(encoder: "Encoder") -> None:
    from l2v.models.compilation import compile_layers

    try:
        compile_layers(encoder)
    except ModelError as error:
        logger.warning("serving without compilation", extra={"reason": str(error)})
    else:
        freeze()
        logger.info("compiled")
