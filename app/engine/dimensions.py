"""Decides how many leading dimensions of a vector to keep."""

from l2v.app.engine.errors import InvalidError
from l2v.app.engine.output_types import PACKED, OutputDtype
from l2v.models.declaration import Declaration


def choose_dimensions(declaration: Declaration, width: int, requested: int | None, dtype: OutputDtype = "float") -> int:
    """The number of leading dimensions to keep: the requested number, or the model's default.

    Args:
        declaration: the model's declaration.
        width: the number of dimensions of the model's vectors.
        requested: the requested number; None means the model's default.
        dtype: the type of the numbers.

    Raises:
        InvalidError: if the model has fewer dimensions than requested or was not trained for the requested number, or
            if the type packs eight dimensions into a byte and the number to keep is not a multiple of 8.
    """
    sizes = declaration.matryoshka_dimensions.value
    if requested is not None and requested > width:
        raise InvalidError(f"must be at most {width}, the model's dimensions", "dimensions")
    if requested is not None and sizes and requested not in (*sizes, width):
        known = ", ".join(map(str, sorted({*sizes, width})))
        raise InvalidError(f"must be one of {known}, the sizes that the model was trained for", "dimensions")
    chosen = declaration.truncate_dim.value or width if requested is None else requested
    if dtype in PACKED and chosen % 8:
        advice = "set dimensions to a multiple of 8" if requested is None else "choose a multiple of 8"
        raise InvalidError(
            f"{dtype} packs 8 dimensions into a byte, and the vectors have {chosen}: {advice}",
            "output_dtype" if requested is None else "dimensions",
        )
    return chosen


def dimensions_warning(declaration: Declaration, width: int, requested: int | None) -> str:
    """A warning if the model does not declare that the requested number of leading dimensions suffices; else ""."""
    known = {width, declaration.truncate_dim.value, *(declaration.matryoshka_dimensions.value or ())}
    if requested is None or requested in known:
        return ""
    return f"the model does not declare that its first {requested} dimensions suffice: measure before relying on them"
