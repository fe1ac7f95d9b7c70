"""Resolving a stack: a base (or an export) and the adapters merged on top of it."""

from collections.abc import Sequence

from l2v.models.errors import SourceError
from l2v.models.published import STACKS
from l2v.models.sources import Kind, Source, resolve


def resolve_stack(
    model: str, adapters: Sequence[str], requested_by: tuple[str, ...] = ()
) -> tuple[Source, list[Source]]:
    """Resolves a model and its adapters to local folders.

    Args:
        model: a base, an adapter (whose base is then resolved too), an export, or a published short name.
        adapters: further adapters, in the order of merging.
        requested_by: the adapters whose bases led here, to detect an adapter that names itself.

    Returns:
        The base or export, and all adapters in the order of merging.

    Raises:
        SourceError: if one of them cannot be resolved or is of the wrong kind.
    """
    if model in requested_by:
        raise SourceError(f"adapter {model} names itself as its base: name the base as the model instead")
    if published := STACKS.get(model):
        model, adapters = published.model, [*published.adapters, *adapters]
    source, further = resolve(model), [resolve(adapter) for adapter in adapters]
    for adapter in further:
        if adapter.kind is not Kind.ADAPTER:
            raise SourceError(
                f"{adapter.name} is not an adapter (it has no adapter_config.json): name it as the model instead"
            )
    if source.kind is not Kind.ADAPTER:
        return source, further
    named = source.read("adapter_config.json").get("base_model_name_or_path")
    if not named:
        raise SourceError(f"adapter {source.name} does not name its base model: name the base as the model instead")
    try:
        base, earlier = resolve_stack(source.relative(named) or named, [], (*requested_by, model))
    except SourceError as error:
        raise SourceError(f"the base of adapter {source.name} cannot be loaded: {error}") from error
    return base, [*earlier, source, *further]
