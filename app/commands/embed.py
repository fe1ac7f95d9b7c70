"""`l2v embed`."""

import os
from functools import partial

from pydantic import Field

from l2v.app.bulk.settings import ClientSettings, RunSettings


class Embed(ClientSettings, RunSettings):
    """Embed a file of texts. Reads lines, CSV, JSONL or Parquet; writes Parquet, JSONL or .npy; `-` is stdin or stdout.

    Memory use does not grow with the input. The run may be interrupted at any time: the same command resumes it, and
    OUTPUT appears when it is complete. The run stops at the first row that cannot be embedded, and reports its number
    and the reason; with --skip-bad, it writes such rows to a file and continues.

    Examples:
        l2v embed texts.txt vectors.npy
        l2v embed docs.csv docs.parquet --column body --keep id,title
        l2v embed queries.jsonl out.jsonl --instruction "Retrieve passages that answer:" --skip-bad bad.jsonl
        l2v embed docs.parquet out.parquet --url http://gpu:8080 --concurrency 8
        l2v embed docs.parquet out.parquet --url http://gpu:8080 --model-name law
        cat texts.txt | l2v embed - - | head
    """

    concurrency: int = Field(4, ge=1, description="Requests to the service at a time")

    def cli_cmd(self) -> None:
        from l2v.app.bulk.reporting import print_line
        from l2v.app.bulk.running import run

        try:
            run(self, partial(self.open_embedder, self.embed_options, self.concurrency))
        except KeyboardInterrupt:
            print_line(
                "interrupted" if "-" in (self.input, self.output) else "interrupted; run the same command to resume"
            )
            os._exit(130)  # a normal exit waits for the thread that runs the model
