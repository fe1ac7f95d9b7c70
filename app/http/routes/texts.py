"""Inputs of the surfaces that accept token ids in place of texts."""

from typing import Any

from l2v.app.engine.inputs import DefaultInstruction, InputGroup
from l2v.app.engine.served_models import ServedModel
from l2v.app.engine.service import Service
from l2v.models import Input


async def text_group(
    service: Service,
    model: ServedModel,
    name: str,
    value: Any,
    instruction: DefaultInstruction,
    *,
    keep_end: bool = False,
    max_tokens: int | None = None,
) -> InputGroup:
    """The inputs of a field that holds a text, token ids, or a list of either; raises as `read_texts`."""
    texts = await read_texts(service, model, name, value)
    inputs = [Input(text, instruction.text, keep_end, max_tokens) for text in texts]
    return InputGroup(name, inputs, instruction, _is_single(value))


async def read_texts(
    service: Service, model: ServedModel, name: str, value: Any, *, skip_special: bool = True
) -> list[str]:
    """The texts of a field that holds a text, token ids, or a list of either; raises as `TokenizerPool.decode`."""
    single = _is_single(value)
    items = [value] if single else value
    service.tokenizers.check_count(len(items), name)
    return await service.tokenizers.decode(
        model.profile, items, lambda index: name if single else f"{name}[{index}]", skip_special=skip_special
    )


def _is_single(value: Any) -> bool:
    return isinstance(value, str) or isinstance(value[0], int)
