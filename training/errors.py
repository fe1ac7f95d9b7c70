"""What can be wrong with a training run, as one sentence for the person who can mend it."""

from l2v.models.errors import ModelError


class TrainingError(ModelError):
    """The run cannot start or go on: its data, its settings, its memory or its disk."""
