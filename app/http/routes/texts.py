"""The fields of the surfaces that take token ids where a text may stand."""

from collections.abc import Sequence
from typing import Any

from l2v.app.engine.inputs import Side
from l2v.app.engine.prompts import Shared
from l2v.app.engine.service import Service
from l2v.app.http.errors import InvalidError, TooLargeError
from l2v.models import Input


async def side_of(service: Service, given: Any, name: str, shared: Shared, keep_end: bool = False) -> Side:
    """A text, token ids, or a list of either, as inputs; raises as `texts_of`."""
    texts = await texts_of(service, given, name)
    return Side(name, [Input(text, shared.text, keep_end) for text in texts], shared, _is_single(given))


async def texts_of(service: Service, given: Any, name: str, *, skip_special_tokens: bool = True) -> Sequence[str]:
    """The texts of a field that holds a text, token ids, or a list of either.

    Raises:
        InvalidError: for too many ids in a row, and for an id that the model does not have.
        TooLargeError: for too many items, or if the ids stand for more than a body may hold: a single token can have a
            hundred characters.
    """
    single = _is_single(given)
    items = [given] if single else given
    service.check_count(len(items), [name])
    if all(isinstance(item, str) for item in items):
        return list(items)
    tokenizer, settings = service.encoder.tokenization.tokenizer, service.settings
    vocabulary, room = tokenizer.get_vocab_size(), settings.max_body_bytes

    def read(places: Sequence[int]) -> list[str]:
        return [items[place] if isinstance(items[place], str) else decode(place) for place in places]

    def decode(place: int) -> str:
        nonlocal room
        ids, param = items[place], name if single else f"{name}[{place}]"
        if len(ids) > (most := settings.max_characters):
            raise InvalidError(f"{len(ids)} token ids, at most {most} (max_characters)", param)
        if (highest := max(ids)) >= vocabulary:
            raise InvalidError(f"{highest} is not one of the model's token ids", param)
        text: str = tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        if (room := room - len(text)) < 0:
            most = settings.max_body_bytes
            raise TooLargeError(f"the token ids stand for more than {most} characters (max_body_bytes)", param)
        return text

    return await service.tokenizers.run(read, range(len(items)))


def _is_single(given: Any) -> bool:
    return isinstance(given, str) or isinstance(given[0], int)
