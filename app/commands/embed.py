"""`l2v embed`."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, PrivateAttr
from pydantic_settings import CliPositionalArg

from l2v.app.bulk.errors import UsageError
from l2v.app.bulk.formats import InputFormat, OutputFormat, input_format, output_format
from l2v.app.bulk.rows import Columns
from l2v.app.commands.client import BatchTokens, ClientSettings
from l2v.models.settings import Names

if TYPE_CHECKING:
    from l2v.app.bulk.engines import Engine
    from l2v.app.bulk.partial import Partial
    from l2v.app.bulk.sinks import Sink
    from l2v.app.bulk.sources import Source

# The flags that a resumed run must share; the others change how it runs, not what comes out.
_IDENTITY = ("column", "instruction", "instruction_column", "prompt_name", "keep", "dimensions", "normalize")


class Embed(ClientSettings):
    """Embed a file of texts: lines, CSV, JSONL or Parquet in; Parquet, JSONL or .npy out; `-` for stdin and stdout.

    Memory stays the same for any size. Interrupt it whenever you like: the same command goes on where it stopped, and
    OUTPUT appears when it is complete. Rows that cannot be embedded end the run with their number and the reason, or
    are set aside with --skip-bad.

    Examples:
        l2v embed texts.txt vectors.npy
        l2v embed docs.csv docs.parquet --column body --keep id,title
        l2v embed queries.jsonl out.jsonl --instruction "Retrieve passages that answer:" --skip-bad bad.jsonl
        l2v embed docs.parquet out.parquet --url http://gpu:8080 --concurrency 8
        cat texts.txt | l2v embed - - | head
    """

    input: CliPositionalArg[str] = Field(description="File to read (.txt, .csv, .jsonl, .parquet), or `-`")
    output: CliPositionalArg[str] = Field(description="File to write (.parquet, .jsonl, .npy), or `-`")
    format: InputFormat | None = Field(None, description="Format of the input, where its ending does not tell")
    output_format: OutputFormat | None = Field(None, description="Format of the output, where its ending does not tell")
    column: str = Field("text", description="Column or JSON field that holds the text")
    instruction: str | None = Field(None, description="Instruction for the rows that bring none of their own")
    instruction_column: str | None = Field(None, description="Column or JSON field that holds each row's instruction")
    prompt_name: str | None = Field(None, description="A named prompt of the service, in place of --instruction")
    keep: Names = Field((), description="Columns carried through to Parquet or JSONL, comma-separated")
    dimensions: int | None = Field(None, ge=1, description="Keep the first so many dimensions, before normalising")
    normalize: bool = Field(True, description="Scale each vector to length 1")
    batch_size: int = Field(256, ge=1, description="Rows of one batch, or of one request")
    max_batch_tokens: BatchTokens = None
    concurrency: int = Field(4, ge=1, description="Requests to the service at once")
    skip_bad: Path | None = Field(None, description="Set bad rows aside in this file, as JSONL, and go on")
    overwrite: bool = Field(False, description="Replace an OUTPUT that exists")

    _source_form: InputFormat = PrivateAttr()
    _form: OutputFormat = PrivateAttr()

    def cli_cmd(self) -> None:
        from l2v.app.bulk.reporting import say

        self._check()
        try:
            with ExitStack() as stack:
                self._run(stack)
        except KeyboardInterrupt:
            again = "" if "-" in (self.input, self.output) else "; the same command goes on from there"
            say(f"interrupted{again}")
            os._exit(130)  # Python's own way would wait for a thread that is in the model

    def _check(self) -> None:
        """Refuses flags that do not go together, before anything is opened."""
        self._source_form, self._form = (
            input_format(self.input, self.format),
            output_format(self.output, self.output_format),
        )
        if len(set(self.keep)) < len(self.keep):
            raise UsageError("--keep: names a column twice")
        if self.keep and self._form == "npy":
            raise UsageError("--keep: .npy holds vectors and nothing else")
        if "embedding" in self.keep:
            raise UsageError("--keep: the output has a column embedding of its own")
        if self.prompt_name and not self.url:
            raise UsageError("--prompt-name: prompts are the service's, so it needs --url")
        if self.prompt_name and self.instruction:
            raise UsageError("--prompt-name and --instruction exclude each other")
        files = [Path(path).resolve() for path in (self.input, self.output, self.skip_bad) if path and path != "-"]
        if len(set(files)) < len(files):
            raise UsageError("INPUT, OUTPUT and --skip-bad must be different files")

    def _run(self, stack: ExitStack) -> None:
        from l2v.app.bulk.partial import Partial
        from l2v.app.bulk.reporting import open_report, say
        from l2v.app.bulk.running import Run
        from l2v.app.bulk.sources import open_source

        partial = None
        if self.output != "-":
            partial = stack.enter_context(Partial(Path(self.output), overwrite=self.overwrite))
        columns = Columns(self.column, self.instruction_column, self.keep)
        source = open_source(self.input, self._source_form, columns)
        stack.callback(source.close)
        report = open_report()
        engine = stack.enter_context(self._engine(report.note))
        sink = stack.enter_context(self._sink(partial, source, engine))
        if before := sink.progress.rows:
            say(f"resuming after row {before:,}")
        with report:
            Run(source, engine, sink, report, batch_size=self.batch_size, skip_bad=self.skip_bad is not None)()
        done = sink.progress
        aside = f", {done.bad:,} set aside in {self.skip_bad}" if done.bad else ""
        place = "standard output" if partial is None else self.output
        say(f"{report.speed}; {done.written:,} vectors in {place}{aside}")

    def _engine(self, note: Callable[[str], None]) -> "AbstractContextManager[Engine]":
        from l2v.app.bulk.engines import Options

        options = Options(self.instruction, self.prompt_name, self.dimensions, self.normalize)
        if self.url:
            from l2v.app.bulk.remote import RemoteEngine

            return RemoteEngine(self.url, self.key, options, self.concurrency, self.retry_for, note)
        from l2v.app.bulk.local import LocalEngine
        from l2v.app.commands.loading import encoder_for
        from l2v.models.batch import token_budget
        from l2v.models.sources import label

        encoder = encoder_for(self)
        budget = self.max_batch_tokens or token_budget(encoder.device)
        return LocalEngine(encoder, label(self.model), options, budget)

    def _sink(self, partial: "Partial | None", source: "Source", engine: "Engine") -> "AbstractContextManager[Sink]":
        from l2v.app.bulk.engines import identity
        from l2v.app.bulk.sinks import FileSink, StandardOutput

        if partial is None:
            return StandardOutput(self.skip_bad, overwrite=self.overwrite)
        if source.identity["path"] == partial.job.get("input", {}).get("path", "-") == "-":
            partial.forget()
        options = self.model_dump(mode="json", include=set(_IDENTITY)) | {"format": self._source_form}
        job = {"input": source.identity, "options": options | {"output_format": self._form}}
        partial.begin(job | {"model": identity(engine.info)}, self.skip_bad)
        dimensions = self.dimensions or engine.info["dimensions"]
        return FileSink(partial, self._form, dimensions, source.types(), self.skip_bad)
