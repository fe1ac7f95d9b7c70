"""Loading the encoder for a command that runs it in its own process."""

from typing import TYPE_CHECKING

from app.settings import ModelSettings

if TYPE_CHECKING:
    from models import Encoder


def quieten() -> None:
    """Keeps transformers from talking over the command's own output."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def encoder_for(settings: ModelSettings) -> "Encoder":
    """The encoder that the flags name; raises `models.ModelError`."""
    from app.main import load_encoder

    quieten()
    return load_encoder(settings)
