"""Errors of training and evaluation.

ModelError
└── TrainingError   a run cannot start or continue
"""

from l2v.models.errors import ModelError


class TrainingError(ModelError):
    """A run cannot start or continue because of its data, settings, memory or disk."""
