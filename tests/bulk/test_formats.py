"""Every format holds the encoder's vectors and the kept columns."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from l2v.models import Encoder, Input
from tests.bulk.shell import call, normalized, read, run, start, texts, write
from tests.serving import LocalServer

ROWS = [{"id": i, "text": text, "how": "Compare:" if i % 3 else ""} for i, text in enumerate(texts(300))]
MODEL = ("--dtype", "float32", "--model")


def expected(encoder: Encoder, instruction: str = "", own: bool = False) -> np.ndarray:
    inputs = [Input(row["text"], row["how"] if own else instruction) for row in ROWS]
    return encoder.encode(inputs)


@pytest.mark.parametrize(
    ("source", "target"),
    [("in.txt", "out.npy"), ("in.csv", "out.jsonl"), ("in.jsonl", "out.parquet"), ("in.parquet", "out.npy")],
)
def test_every_format_holds_the_encoders_vectors(
    source: str, target: str, encoder: Encoder, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / target
    ended = call(capsys, "embed", write(tmp_path / source, ROWS), out, *MODEL, adapter, "--batch-size", 64)
    assert ended.status == 0, ended.err
    assert "300 vectors" in ended.err
    np.testing.assert_allclose(read(out), normalized(expected(encoder)), atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source, target])


@pytest.mark.parametrize(
    ("source", "target"), [("in.csv", "out.parquet"), ("in.jsonl", "out.jsonl"), ("in.parquet", "out.parquet")]
)
def test_instructions_dimensions_and_kept_columns(
    source: str, target: str, encoder: Encoder, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / target
    flags = ["--instruction", "Find:", "--instruction-column", "how", "--keep", "id,how"]
    flags += ["--dimensions", "8", "--no-normalize"]
    ended = call(capsys, "embed", write(tmp_path / source, ROWS), out, *MODEL, adapter, *flags)
    assert ended.status == 0, ended.err
    np.testing.assert_allclose(read(out), expected(encoder, "Find:", own=True)[:, :8], atol=1e-5)
    kept = [json.loads(line) for line in out.read_text().splitlines()] if out.suffix == ".jsonl" else rows_of(out)
    number = str if source == "in.csv" else int  # CSV has no types
    assert [(row["id"], row["how"]) for row in kept] == [(number(row["id"]), row["how"]) for row in ROWS]


@pytest.mark.parametrize("target", ["out.npy", "out.jsonl", "out.parquet"])
def test_packed_bits_of_a_model_and_of_a_service(
    target: str,
    encoder: Encoder,
    server: LocalServer,
    adapter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, flags = write(tmp_path / "in.jsonl", ROWS[:20]), ("--output-dtype", "ubinary", "--dimensions", "16")
    local, remote = tmp_path / target, tmp_path / f"remote-{target}"
    for path, model in ((local, (*MODEL, adapter)), (remote, ("--url", server.url))):
        ended = call(capsys, "embed", source, path, *model, *flags, "--batch-size", 4)
        assert ended.status == 0
        assert ended.err.count("l2v: warning: the model does not declare support for 16 dimensions") == 1
    bits = np.packbits(expected(encoder)[:20, :16] > 0, axis=1)
    for path in (local, remote):
        np.testing.assert_array_equal(read(path), bits)
    if target == "out.parquet":
        assert pq.read_schema(local).field("embedding").type == pa.list_(pa.uint8(), 2)
    refused = call(capsys, "embed", source, tmp_path / "none.npy", *MODEL, adapter, *flags[:-1], "12")
    assert refused.status == 2
    assert "l2v: --dimensions: ubinary packs 8 dimensions into a byte, and the vectors have 12" in refused.err


def rows_of(path: Path) -> Sequence[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return rows


def test_parquet_keeps_types_and_stores_fixed_size_lists(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pa.table(
        {
            "text": pa.array(["a b", "c d"]).dictionary_encode(),
            "when": pa.array([1, None], pa.timestamp("ns")),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "tags": pa.array([[1, 2], []], pa.list_(pa.int16())),
            "price": pa.array(["1.50", "2.25"]).cast(pa.decimal128(5, 2)),
            "raw": pa.array([b"\xff\x00", b""]),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    kept = ["when", "kind", "tags", "price", "raw"]
    for target in ("out.parquet", "out.jsonl"):
        ended = call(
            capsys, "embed", tmp_path / "in.parquet", tmp_path / target, *MODEL, adapter, "--keep", ",".join(kept)
        )
        assert ended.status == 0, ended.err
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.schema.field("embedding").type == pa.list_(pa.field("element", pa.float32()), 32)
    for name in kept:
        plain = table[name].cast(pa.string()) if name == "kind" else table[name]
        assert out[name].to_pylist() == plain.to_pylist() if name != "when" else out[name].equals(plain)
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert (first["kind"], first["tags"], first["price"], first["raw"]) == ("x", [1, 2], "1.50", "/wA=")


def test_parquet_keeps_lists_and_maps_that_are_null(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {
        "text": pa.array(["a", "b", "c"]),
        "tags": pa.array([["x"], None, []], pa.list_(pa.string())),
        "deep": pa.array([[[1], None], None, [[]]], pa.list_(pa.list_(pa.int8()))),
        "pair": pa.array([[1.0, 2.0], None, [3.0, None]], pa.list_(pa.float32(), 2)),
        "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        "thing": pa.array([{"a": [1]}, None, {"a": None}], pa.struct([("a", pa.list_(pa.int64()))])),
        "kinds": pa.array([["x"], None, ["y"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    kept = [name for name in columns if name != "text"]
    ended = call(
        capsys, "embed", tmp_path / "in.parquet", tmp_path / "out.parquet", *MODEL, adapter, "--keep", ",".join(kept),
        "--batch-size", 2,
    )  # fmt: skip
    assert ended.status == 0, ended.err
    out = pq.read_table(tmp_path / "out.parquet")
    assert {name: out[name].to_pylist() for name in kept} == {name: columns[name].to_pylist() for name in kept}


def test_large_numbers_are_kept(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For example 64-bit hashes."""
    numbers = [2**63 + 5, 5, None, 2**64 - 1]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": "a", "id": number}) + "\n" for number in numbers))
    ended = call(capsys, "embed", tmp_path / "in.jsonl", tmp_path / "out.parquet", *MODEL, adapter, "--keep", "id")
    assert ended.status == 0, ended.err
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == numbers


def test_a_type_that_parquet_cannot_store_is_rejected_before_embedding(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a", "meta": {}}\n')
    ended = call(capsys, "embed", tmp_path / "in.jsonl", tmp_path / "out.parquet", *MODEL, adapter, "--keep", "meta")
    assert (ended.status, "Parquet cannot store the column meta" in ended.err) == (1, True), ended.err


def test_csv_records_may_span_lines_after_a_byte_order_mark(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b'\xef\xbb\xbftext,id\r\n"one, two\nthree ""four""",1\r\n\r\nfive,2\r\n')
    ended = call(capsys, "embed", path, tmp_path / "o.jsonl", *MODEL, adapter, "--keep", "text,id")
    assert ended.status == 0, ended.err
    kept = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [(row["text"], row["id"]) for row in kept] == [('one, two\nthree "four"', "1"), ("five", "2")]


@pytest.mark.parametrize("target", ["out.parquet", "out.jsonl", "out.npy"])
def test_an_empty_input_gives_an_empty_output(
    target: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").touch()
    assert call(capsys, "embed", tmp_path / "in.txt", tmp_path / target, *MODEL, adapter).status == 0
    if target == "out.npy":
        assert np.load(tmp_path / target).shape == (0, 32)
    elif target == "out.parquet":
        assert pq.read_table(tmp_path / target).num_rows == 0
    else:
        assert (tmp_path / target).read_bytes() == b""


def test_a_named_pipe_is_read_to_its_end(adapter: Path, tmp_path: Path) -> None:
    """The shell makes one for `<(zcat texts.gz)`."""
    pipe, out = tmp_path / "pipe", tmp_path / "out.npy"
    os.mkfifo(pipe)
    process = start("embed", pipe, out, *MODEL, adapter, "--format", "text")
    pipe.write_bytes("\n".join(texts(300)).encode())
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert np.load(out).shape == (300, 32)


def test_stdin_to_stdout(encoder: Encoder, adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = texts(5)
    ended = run("embed", "-", "-", *MODEL, adapter, stdin="\n".join(some).encode())
    assert ended.status == 0, ended.err
    vectors = np.array([json.loads(line)["embedding"] for line in ended.out.splitlines()])
    np.testing.assert_allclose(vectors, normalized(encoder.encode([Input(text) for text in some])), atol=1e-5)
    lines = "".join(json.dumps({"body": text}) + "\n" for text in some).encode()
    again = call(capsys, "embed", "-", "-", *MODEL, adapter, "--format", "jsonl", "--column", "body", stdin=lines)
    assert again.out == ended.out
