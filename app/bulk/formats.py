"""Names of the formats, by flag or by the file's ending."""

from pathlib import Path
from typing import Literal, get_args

from l2v.app.bulk.errors import UsageError

InputFormat = Literal["text", "csv", "jsonl", "parquet"]
OutputFormat = Literal["parquet", "jsonl", "npy"]

_INPUTS: dict[str, InputFormat] = {
    ".txt": "text",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_OUTPUTS: dict[str, OutputFormat] = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".npy": "npy"}


def input_format(path: str, named: InputFormat | None) -> InputFormat:
    """The format of the input: the one named, else by its ending; `-` is text."""
    if named:
        return named
    if path == "-":
        return "text"
    if known := _INPUTS.get(Path(path).suffix.lower()):
        return known
    raise UsageError(f"{path}: its ending names no format; say it with --format ({', '.join(get_args(InputFormat))})")


def output_format(path: str, named: OutputFormat | None) -> OutputFormat:
    """The format of the output: the one named, else by its ending; `-` is JSONL and nothing else."""
    if path == "-":
        if named not in (None, "jsonl"):
            raise UsageError(f"standard output takes jsonl only: name a file for {named}")
        return "jsonl"
    if found := named or _OUTPUTS.get(Path(path).suffix.lower()):
        return found
    raise UsageError(
        f"{path}: its ending names no format; say it with --output-format ({', '.join(get_args(OutputFormat))})"
    )
