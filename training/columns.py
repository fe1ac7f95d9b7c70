"""The setting that maps fields of the data to columns with other names. Does not import torch."""

from typing import Annotated

from pydantic import AfterValidator

from l2v.models.settings import Names

# The fields of training and evaluation data.
FIELDS = ("text", "query", "positive", "negative", "negatives", "instruction", "symmetric", "vectors", "score")


def _check(mappings: tuple[str, ...]) -> tuple[str, ...]:
    for mapping in mappings:
        field, _, column = mapping.partition("=")
        if field not in FIELDS or not column:
            raise ValueError(f"{mapping} is not FIELD=COLUMN with a field of {', '.join(FIELDS)}")
    return mappings


Mappings = Annotated[Names, AfterValidator(_check)]
