"""Decides how many leading dimensions of a vector to keep."""

from collections.abc import Collection

from l2v.app.engine.errors import InvalidError
from l2v.app.engine.output_types import PACKED, OutputDtype
from l2v.models.declaration import Declaration


def choose_dimensions(declaration: Declaration, width: int, requested: int | None, dtype: OutputDtype = "float") -> int:
    """The number of leading dimensions to keep: the requested number, or the model's default.

    Args:
        declaration: the model's declaration.
        width: the number of dimensions of the model's vectors.
        requested: the requested number; None means the model's default.
        dtype: the type of the numbers in the returned vectors.

    Raises:
        InvalidError: if the model has fewer dimensions than requested or was not trained for the requested number, or
            if the type packs eight dimensions into a byte and the number to keep is not a multiple of 8.
    """
    if requested is None:
        chosen = declaration.truncate_dim.value or width
        param, advice = "output_dtype", "set dimensions to a multiple of 8"
    else:
        _check_requested(requested, declaration.matryoshka_dimensions.value, width)
        chosen = requested
        param, advice = "dimensions", "choose a multiple of 8"
    if dtype in PACKED and chosen % 8:
        message = f"{dtype} packs 8 dimensions into a byte, and the vectors have {chosen} dimensions: {advice}"
        raise InvalidError(message, param)
    return chosen


def _check_requested(requested: int, sizes: Collection[int] | None, width: int) -> None:
    if requested > width:
        raise InvalidError(f"must be at most {width}, the number of dimensions of the model", "dimensions")
    if sizes and requested not in (*sizes, width):
        known = ", ".join(map(str, sorted({*sizes, width})))
        raise InvalidError(f"must be one of {known}, the sizes that the model was trained for", "dimensions")


def dimensions_warning(declaration: Declaration, width: int, requested: int | None) -> str:
    """A warning if the model does not declare support for the requested number of dimensions; otherwise ""."""
    known = {width, declaration.truncate_dim.value, *(declaration.matryoshka_dimensions.value or ())}
    if requested is None or requested in known:
        return ""
    return f"the model does not declare support for {requested} dimensions: check the results on your own data"
