"""What the engine tells a front end at its start."""

from dataclasses import dataclass, replace
from pathlib import Path

from l2v.app.engine.prompts import Prompts
from l2v.app.settings import Settings


@dataclass(frozen=True, slots=True)
class Setup:
    """What a front end starts with. It comes through standard input, since it contains keys.

    Attributes:
        settings: all settings, with the contents of the files that they name.
        prompts: the configured prompts.
        started: when the service started, in seconds since the epoch.
        folder: the service's private folder.
        table: the descriptor of the table's file.
        slot: the front end's place in the table.
        engine: the descriptor of the connection to the engine.
        listeners: the descriptors of the sockets to accept from.
        loaded: whether the encoder is loaded, so that the front end opens before it accepts connections.
    """

    settings: Settings
    prompts: Prompts
    started: int
    folder: Path
    table: int
    slot: int = 0
    engine: int = -1
    listeners: tuple[int, ...] = ()
    loaded: bool = False

    def of(self, slot: int, engine: int, listeners: tuple[int, ...], *, loaded: bool) -> "Setup":
        """This setup for one front end."""
        return replace(self, slot=slot, engine=engine, listeners=listeners, loaded=loaded)
