"""The command `l2v`: one class a subcommand, its fields the flags."""

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import transformers
import uvicorn
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict

from app.main import create_app, load_encoder
from app.settings import PREFIX, ModelSettings, Settings
from app.telemetry import configure_logging
from models import ModelError
from models.export import export


class Serve(Settings):
    """Serve an encoder over HTTP."""

    def cli_cmd(self) -> None:
        configure_logging(self.log_level)
        failures: list[str] = []

        def stop(reason: str) -> None:
            failures.append(reason)
            server.should_exit = True

        app = create_app(self, on_failure=stop)
        config = uvicorn.Config(
            app,
            host=self.host,
            port=self.port,
            log_config=None,
            access_log=False,
            server_header=False,
            # The body and the answers wait for the queue to drain; uvicorn waits a little longer.
            timeout_graceful_shutdown=int(self.drain_timeout) + 1,
        )
        server = Server(config, app.state.service.drain)
        server.run()
        if failures or not server.started:
            raise SystemExit(f"l2v: {failures[0]}" if failures else 1)


class Server(uvicorn.Server):
    """Tells the service of a signal before uvicorn stops listening, and ends with status 0 after an orderly stop."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._drain()
        # A second signal ends it at once. uvicorn's own version would raise the signal again afterwards.
        self.force_exit = self.should_exit
        self.should_exit = True


class Export(ModelSettings):
    """Merge base and adapters and write the encoder as a folder of its own."""

    out: CliPositionalArg[Path] = Field(description="The new folder")

    def cli_cmd(self) -> None:
        logging.basicConfig(level="INFO", format="%(message)s")
        export(load_encoder(self), self.out)
        print(f"wrote {self.out}: serve it with `l2v serve --model {self.out}`")


class L2v(BaseSettings):
    """LLM2Vec embeddings: serve them, export them."""

    model_config = SettingsConfigDict(
        cli_prog_name="l2v",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_enforce_required=True,
    )

    serve: CliSubCommand[Serve]
    export: CliSubCommand[Export]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def main() -> None:
    """Runs the command; a mistake ends with one sentence and status 1 or 2."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        CliApp.run(L2v)
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][-1]) if problem["loc"] else ""
            where = f"--{name.replace('_', '-')} ({PREFIX}{name.upper()}): " if name.islower() else ""
            print(f"l2v: {where}{problem['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        raise SystemExit(2) from None
    except ModelError as error:
        raise SystemExit(f"l2v: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
