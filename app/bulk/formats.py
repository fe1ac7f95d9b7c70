"""File formats, chosen by a flag or by the file's extension."""

from pathlib import Path
from typing import Literal, get_args

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


def input_format(path: str, chosen: InputFormat | None) -> InputFormat:
    """Returns `chosen`, or else the format that the extension names. `-` is read as text.

    Raises:
        ValueError: if the extension names no format.
    """
    if chosen:
        return chosen
    if path == "-":
        return "text"
    if found := _INPUTS.get(Path(path).suffix.lower()):
        return found
    raise ValueError(f"{path}: the extension names no format; pass --format ({', '.join(get_args(InputFormat))})")


def output_format(path: str, chosen: OutputFormat | None) -> OutputFormat:
    """Returns `chosen`, or else the format that the extension names. `-` is written as JSONL.

    Raises:
        ValueError: if the extension names no format, or the output is `-` and the format is not JSONL.
    """
    if path == "-":
        if chosen not in (None, "jsonl"):
            raise ValueError(f"standard output can only be jsonl: to write {chosen}, name a file")
        return "jsonl"
    if found := chosen or _OUTPUTS.get(Path(path).suffix.lower()):
        return found
    formats = ", ".join(get_args(OutputFormat))
    raise ValueError(f"{path}: the extension names no format; pass --output-format ({formats})")
