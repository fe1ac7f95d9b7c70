"""How much of each service-wide limit is in use."""


class Amount:
    """An amount in use, such as the number of open connections."""

    def __init__(self) -> None:
        self._own = 0

    def add(self, amount: int) -> None:
        self._own += amount

    @property
    def own(self) -> int:
        """The part that this process uses."""
        return self._own

    @property
    def total(self) -> int:
        """The amount that all processes of the service use together."""
        return self._own


class Usage:
    """The amounts in use.

    Attributes:
        requests: the number of requests in flight.
        connections: the number of open connections.
        body_bytes: the number of bytes of all bodies in memory.
    """

    def __init__(self) -> None:
        self.requests, self.connections, self.body_bytes = Amount(), Amount(), Amount()
