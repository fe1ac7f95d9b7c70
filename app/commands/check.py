"""`l2v check`."""

from typing import TYPE_CHECKING

from l2v.app.settings import Settings

if TYPE_CHECKING:
    from l2v.models import Encoder


class Check(Settings):
    """Load the configured model, look whether it computes what it should, and say what was found.

    Ends with status 0 if it may serve, else 1 with the reason. Takes the settings of `l2v serve`.

    Examples:
        l2v check
        l2v check --model mistral-7b-supervised --device cuda
    """

    def cli_cmd(self) -> None:
        from l2v.app.commands.loading import encoder_for
        from l2v.models.sources import label

        encoder = encoder_for(self)
        sources = ", ".join(source["name"] for source in encoder.provenance)
        print(f"model: {label(self.model)} of {sources}, {encoder.dtype} on {encoder.device}")
        for line in [*encoder.evidence, _known_text(encoder)]:
            print(line)


def _known_text(encoder: "Encoder") -> str:
    """What a text's vectors say; raises `ModelError` for what is wrong with them."""
    import numpy as np

    from l2v.app.engine.vectors import normalize
    from l2v.models import ModelError
    from l2v.models.known import Known

    first, second = Known.of(encoder).vector, Known.of(encoder).vector
    length = float(np.linalg.norm(normalize(first[None])))
    if not abs(length - 1) < 1e-5:
        raise ModelError(
            f"a known text gives a vector of length {length} where it should be 1: the weights are damaged"
        )
    if not np.array_equal(first, second):
        raise ModelError("a known text gives another vector at the second time: the device computes wrongly")
    return f"known text: {len(first)} finite dimensions, of length 1, the same at the second time"
