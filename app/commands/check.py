"""`l2v check`."""

from typing import TYPE_CHECKING

from l2v.app.settings import Settings

if TYPE_CHECKING:
    from l2v.models import Encoder


class Check(Settings):
    """Load the configured model, verify it, and print the results.

    Exits with status 0 if the model can be served, else with status 1 and the reason. Takes the flags of `l2v serve`.

    Examples:
        l2v check
        l2v check --model mistral-7b-supervised --device cuda
    """

    def cli_cmd(self) -> None:
        self.announce()
        from l2v.app.engine.profile import Profile
        from l2v.app.engine.prompts import Prompts
        from l2v.models.sources import label

        encoder = self.load()
        # Refuses a prompt that leaves no room for a text.
        prompts = Prompts.of(Profile.of(encoder), self.read_prompts())
        sources = ", ".join(source["name"] for source in encoder.provenance)
        print(f"model: {label(self.model)} of {sources}, {encoder.dtype} on {encoder.device}")
        print(*encoder.evidence, _repeat(encoder), sep="\n")
        if prompts.by_name:
            print(f"prompts: {', '.join(prompts.by_name)} leave room for a text")


def _repeat(encoder: "Encoder") -> str:
    """Embed one text twice, and return a line that reports success.

    Raises:
        ModelError: the two vectors differ, or a normalized vector does not have the length 1.
    """
    import numpy as np

    from l2v.app.engine.vectors import normalize
    from l2v.models import ModelError
    from l2v.models.reference_vector import ReferenceVector

    first, second = ReferenceVector.of(encoder).vector, ReferenceVector.of(encoder).vector
    length = float(np.linalg.norm(normalize(first[None])))
    if not abs(length - 1) < 1e-5:
        raise ModelError(f"a normalized vector has the length {length}, not 1: the weights are damaged")
    if not np.array_equal(first, second):
        raise ModelError("the same text got two different vectors: the device computes incorrectly")
    return f"repeatability: a text embedded twice gives the same vector ({len(first)} finite dimensions, length 1)"
