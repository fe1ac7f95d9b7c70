"""Inputs of the APIs that accept token ids in place of texts."""

from typing import Any

from l2v.app.engine.inputs import DefaultInstruction, InputGroup
from l2v.app.engine.served_models import ServedModel
from l2v.app.http.endpoints import Call
from l2v.models import Input


async def text_group(
    call: Call,
    model: ServedModel,
    name: str,
    value: Any,
    instruction: DefaultInstruction,
    *,
    keep_end: bool | None = None,
    max_tokens: int | None = None,
    truncate: bool = True,
) -> InputGroup:
    """The inputs of a field that holds a text, token ids, or a list of either. Raises the errors of `read_texts`.

    If `truncate` is false, texts that are too long are rejected. To make a rejection cheap, the longest row of ids is
    decoded and tokenized before the others if it has more than `max_length` ids.
    """
    longest = None if truncate or _is_single(value) else max(range(len(value)), key=lambda row: _length(value[row]))
    if longest is not None and _length(value[longest]) > model.profile.tokenization.max_length:
        first = await text_group(call, model, f"{name}[{longest}]", value[longest], instruction, max_tokens=max_tokens)
        await call.service.tokenize(model, first, call.timings, truncate=False)
    texts = await read_texts(call, model, name, value)
    inputs = [Input(text, instruction.text, keep_end, max_tokens) for text in texts]
    return InputGroup(name, inputs, instruction, _is_single(value))


async def read_texts(call: Call, model: ServedModel, name: str, value: Any, *, skip_special: bool = True) -> list[str]:
    """The texts of a field that holds a text, ids, or a list of either. Raises the errors of `TokenizerPool.decode`."""
    single, service = _is_single(value), call.service
    items = [value] if single else value
    service.tokenizers.check_count(len(items), name)
    return await service.tokenizers.decode(
        model.profile,
        items,
        lambda index: name if single else f"{name}[{index}]",
        skip_special=skip_special,
        reserve=call.reserve,
    )


def _length(item: str | list[int]) -> int:
    """The number of ids; 0 for a text."""
    return 0 if isinstance(item, str) else len(item)


def _is_single(value: Any) -> bool:
    return isinstance(value, str) or isinstance(value[0], int)
