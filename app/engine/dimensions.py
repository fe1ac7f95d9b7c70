"""The number of leading dimensions of a vector that a request asks for."""

from l2v.app.engine.errors import InvalidError
from l2v.app.engine.profile import Profile


def choose_dimensions(encoder: Profile, requested: int | None) -> int:
    """The number of leading dimensions to keep: the requested one, or the model's default.

    Raises:
        InvalidError: if the model does not have as many, or was not trained for this number.
    """
    width, sizes = encoder.width, encoder.declaration.matryoshka_dimensions.value
    if requested is None:
        return encoder.dimensions
    if requested > width:
        raise InvalidError(f"must be at most {width}, the model's dimensions", "dimensions")
    if sizes and requested not in (*sizes, width):
        known = ", ".join(map(str, sorted({*sizes, width})))
        raise InvalidError(f"must be one of {known}, the sizes that the model was trained for", "dimensions")
    return requested
