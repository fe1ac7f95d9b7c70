"""Resolves a stack, which is a base (or an export) and the adapters to merge into it."""

import logging
from collections.abc import Sequence
from pathlib import Path

from l2v.models.errors import SourceError
from l2v.models.published import STACKS
from l2v.models.sources import BASE_WEIGHTS, Kind, Source, resolve

logger = logging.getLogger(__name__)


def resolve_stack(model: str, adapters: Sequence[str]) -> tuple[Source, list[Source]]:
    """Resolves a model and its adapters to local folders.

    Args:
        model: a base, an adapter (whose base is then resolved too), an export, or a published short name.
        adapters: further adapters, in the order of merging.

    Returns:
        The base or export, and all adapters in the order of merging.

    Raises:
        SourceError: if the model or an adapter cannot be resolved or is of the wrong kind, or if a published adapter
            lacks the one that it was trained on top of.
    """
    base, merged = _resolve_stack(model, adapters)
    check_first(base, merged)
    return base, merged


def check_first(base: Source, adapters: Sequence[Source]) -> None:
    """Refuses a second adapter by LLM2Vec's authors directly on the base: its own config does not name the first one.

    Raises:
        SourceError: if the first adapter is missing; the message names it.
    """
    if not adapters:
        return
    first = adapters[0].name
    for name, stack in STACKS.items():
        if first in stack.adapters and base.name == stack.base:
            raise SourceError(
                f"adapter {first} was trained on top of {stack.model}, which is missing: set the model to {name}, or "
                f"to {stack.model} with {first} as an adapter"
            )


def _resolve_stack(
    model: str, adapters: Sequence[str], requested_by: tuple[Source, ...] = ()
) -> tuple[Source, list[Source]]:
    """See `resolve_stack`.

    Args:
        model: see `resolve_stack`.
        adapters: see `resolve_stack`.
        requested_by: the adapters that name the model as their base. Their configs may also name the base's revision.
            An adapter that names itself as its base is refused.
    """
    if published := STACKS.get(model):
        model, adapters = published.model, [*published.adapters, *adapters]
    further = [resolve(adapter) for adapter in adapters]
    for adapter in further:
        if adapter.kind is not Kind.ADAPTER:
            raise SourceError(
                f"{adapter.name} is not an adapter (it has no adapter_config.json): name it as the model instead"
            )
    source = resolve(_with_revision(model, [*requested_by, *further]))
    if source.kind is not Kind.ADAPTER:
        return source, further
    if any(source.folder.resolve() == adapter.folder.resolve() for adapter in requested_by):
        raise SourceError(f"adapter {source.name} names itself as its base: name the base as the model instead")
    if whole := next((name for name in BASE_WEIGHTS if (source.folder / name).is_file()), None):
        raise SourceError(
            f"{source.name} holds both an adapter and a model's weights ({whole}), so it is unclear whether the "
            "adapter is merged: name the base as the model and this folder as an adapter, or remove the adapter or the "
            "weights from a copy of the folder"
        )
    named = source.trained_on
    if not named:
        raise SourceError(f"adapter {source.name} does not name its base model: name the base as the model instead")
    try:
        base, earlier = _resolve_stack(source.relative(named) or named, [], (*requested_by, source, *further))
    except SourceError as error:
        raise SourceError(f"the base of adapter {source.name} cannot be loaded: {error}") from error
    return base, [*earlier, source, *further]


def _with_revision(model: str, adapters: Sequence[Source]) -> str:
    """The name of a model, with the revision that the adapters were trained on if `model` names no revision."""
    repository, _, explicit = model.partition("@")
    pinned: dict[str, Source] = {}
    for adapter in adapters:
        config = adapter.read("adapter_config.json")
        revision = config.get("revision")
        if not revision or config.get("base_model_name_or_path") != repository or Path(model).expanduser().is_dir():
            continue
        if not isinstance(revision, str):
            raise SourceError(f"adapter_config.json of {adapter.name} has revision {revision!r}, which must be text")
        if explicit and not revision.startswith(explicit) and not explicit.startswith(revision):
            logger.warning(
                "adapter %s was trained on revision %s of %s; %s is used, since you named it",
                adapter.name,
                revision,
                repository,
                explicit,
            )
        pinned.setdefault(revision, adapter)
    if not explicit and len(pinned) > 1:
        (one, first), (other, second) = list(pinned.items())[:2]
        raise SourceError(
            f"adapters {first.name} and {second.name} were trained on different revisions of {repository} ({one} and "
            f"{other}): set the model to one of them, such as {repository}@{one}, and name the adapters in order"
        )
    return model if explicit or not pinned else f"{repository}@{next(iter(pinned))}"
