"""Rejects requests while the queue is full."""

import math

from l2v.app.engine.errors import OverloadedError
from l2v.app.metrics import Metrics

# Upper bound of Retry-After in seconds, since the rate is an estimate and waiting requests may be cancelled.
_MAX_RETRY_AFTER = 60


def check_capacity(tokens: int, limit: int, tokens_per_second: float, metrics: Metrics) -> None:
    """Raises `OverloadedError` if the waiting and reserved tokens have reached the limit.

    The tokens of the new job do not count, so a single job may exceed the limit. Otherwise small jobs could keep the
    queue so full that a large job is always rejected.

    Args:
        tokens: the number of waiting and reserved tokens.
        limit: `max_queue_tokens`.
        tokens_per_second: the recent rate of the engine; 0 if unknown.
        metrics: counts rejections.
    """
    if tokens >= limit:
        metrics.rejected.labels("queue").inc()
        seconds = math.ceil(tokens / tokens_per_second) if tokens_per_second else 1
        raise OverloadedError(
            f"{tokens} tokens are waiting; the limit is {limit} (max_queue_tokens)",
            min(_MAX_RETRY_AFTER, max(1, seconds)),
        )
