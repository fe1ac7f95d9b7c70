"""The data that the engine sends to each front end that it starts."""

from dataclasses import dataclass, replace
from pathlib import Path

from l2v.app.engine.prompts import Prompts
from l2v.app.settings import Settings


@dataclass(frozen=True, slots=True)
class Setup:
    """The data that a front end needs to start. It contains API keys, so a private pipe (standard input) carries it.

    Attributes:
        settings: all settings. `api_keys` contains the keys of `api_keys_file` too; the prompts are in `prompts`.
        prompts: the configured prompts.
        started: when the service started, in seconds since the epoch.
        folder: the service's private folder.
        engine_process: the id of the engine's process.
        table: the file descriptor of the shared table of usage (`table.py`).
        slot: the front end's place in the table.
        engine: the descriptor of the connection to the engine.
        listeners: the descriptors of the sockets on which to accept connections.
        loaded: whether the encoder is loaded. If so, the front end opens the service before it accepts connections.
    """

    settings: Settings
    prompts: Prompts
    started: int
    folder: Path
    engine_process: int
    table: int
    slot: int = 0
    engine: int = -1
    listeners: tuple[int, ...] = ()
    loaded: bool = False

    def of(self, slot: int, engine: int, listeners: tuple[int, ...], *, loaded: bool) -> "Setup":
        """A copy of this setup for one front end."""
        return replace(self, slot=slot, engine=engine, listeners=listeners, loaded=loaded)
