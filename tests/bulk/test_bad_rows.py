"""A bad row ends the run with its number, or goes to a file. Its data appears nowhere else."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from l2v.models import Encoder, Input
from tests.bulk.shell import call, normalized, read

MODEL = ("--dtype", "float32", "--model")
BAD = {
    "in.txt": (b"fine\n\nok\n\xffsecret\nsecret\0x\n  \nlast", {2: "is blank", 4: "UTF-8", 5: "NUL", 6: "is blank"}),
    "in.csv": (
        b'text,id\nfine,1\n,2\nok,3\nsecret,4,5\nsecret\xff,6\n"secret"x,7\n\nlast,8\n"secret,9\n',
        {2: "is blank", 4: "has 3 fields", 5: "UTF-8", 6: "is not valid CSV", 8: "is not valid CSV"},
    ),
    "in.jsonl": (
        (
            b'{"text":"fine"}\n{"text":null}\n{"text":"ok"}\n{"text":\n["secret"]\n{"text":7}\n{"body":"secret"}\n'
            b'{"text":"secret\\u0000"}\n{"text":"\\ud800"}\n\n{"text":"last"}\n'
        ),
        {
            2: "is null",
            4: "is not valid JSON",
            5: "not a JSON object",
            6: "must be text, not int",
            7: "has no field 'text'",
            8: "NUL",
            9: "is not valid JSON",
            10: "is not valid JSON",
        },
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_skip_bad_writes_bad_rows_to_a_file(
    name: str, encoder: Encoder, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, reasons = BAD[name]
    (tmp_path / name).write_bytes(content)
    aside, out = tmp_path / "bad.jsonl", tmp_path / "out.npy"
    flags = ["--skip-bad", aside, "--batch-size", 2]
    ended = call(capsys, "embed", tmp_path / name, out, *MODEL, adapter, *flags)
    assert ended.status == 0, ended.err
    assert f"3 vectors in {out}, {len(reasons)} set aside in {aside}" in ended.err
    bad = [json.loads(line) for line in aside.read_text().splitlines()]
    assert [row["row"] for row in bad] == list(reasons)
    for row in bad:
        assert reasons[row["row"]] in row["reason"]
        assert "secret" not in row["reason"]
    assert "secret" in aside.read_text()
    assert "secret" not in ended.err
    vectors = encoder.encode([Input("fine"), Input("ok"), Input("last")])
    np.testing.assert_allclose(read(out), normalized(vectors), atol=1e-5)


@pytest.mark.parametrize("name", BAD)
def test_the_first_bad_row_ends_the_run_with_its_number(
    name: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, reasons = BAD[name]
    (tmp_path / name).write_bytes(content)
    ended = call(capsys, "embed", tmp_path / name, tmp_path / "out.npy", *MODEL, adapter)
    assert ended.status == 1
    first, reason = next(iter(reasons.items()))
    assert f"l2v: {tmp_path / name}, row {first}: " in ended.err
    assert reason in ended.err
    assert "secret" not in ended.err
    assert not (tmp_path / "out.npy").exists()


def test_a_run_that_stopped_at_a_bad_row_resumes_with_skip_bad(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("a\nb\nc\nd\n\nf\n")
    command = ["embed", tmp_path / "in.txt", tmp_path / "out.npy", *MODEL, adapter, "--batch-size", 2]
    assert call(capsys, *command).status == 1
    ended = call(capsys, *command, "--skip-bad", tmp_path / "bad.jsonl")
    assert "resuming after row 4" in ended.err
    assert read(tmp_path / "out.npy").shape == (5, 32)
    assert json.loads((tmp_path / "bad.jsonl").read_text())["row"] == 5


def test_parquet_rows_with_bad_text_are_bad_rows(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = pa.array([b"fine", None, b"\xff", b" ", b"ok"])
    text = pa.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])
    pq.write_table(pa.table({"text": text, "id": range(5)}), tmp_path / "in.parquet")
    flags = ["--skip-bad", tmp_path / "bad.jsonl", "--keep", "id"]
    ended = call(capsys, "embed", tmp_path / "in.parquet", tmp_path / "out.parquet", *MODEL, adapter, *flags)
    assert ended.status == 0, ended.err
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == [0, 4]
    bad = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [(row["row"], row["reason"]) for row in bad] == [
        (2, "text is null"),
        (3, "text is not UTF-8"),
        (4, "text is blank"),
    ]
    assert bad[1]["raw"] == {"text": "\\xff", "id": 2}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, "x", 2], "int64"),
        ([1, 1.5, 2], "int64"),
        ([2**63, -1, 2**64 - 1], "uint64"),
        ([{"a": 1}, {"a": 1, "b": 2}, {"a": 2}], "struct<a: int64>"),
        ([[{"a": 1}], [{"b": 2}], []], "list<item: struct<a: int64>>"),
        ([["x"], "rock", ["y"]], "list<item: string>"),
    ],
)
def test_kept_values_of_another_type_are_bad_rows_in_parquet(
    values: list[object], kind: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, other, last = values
    rows = [{"text": "a", "n": first}, {"text": "b"}, {"text": "c", "n": other}, {"text": "d", "n": last}]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = ["embed", tmp_path / "in.jsonl", tmp_path / "out.parquet", *MODEL, adapter, "--keep", "n"]
    command += ["--batch-size", 2]
    ended = call(capsys, *command)
    assert ended.status == 1
    assert f"row 3: n must be {kind}" in " ".join(ended.err.split())
    assert call(capsys, *command, "--skip-bad", tmp_path / "bad.jsonl").status == 0
    assert pq.read_table(tmp_path / "out.parquet")["n"].to_pylist() == [first, None, last]


def test_invalid_utf8_in_a_kept_parquet_column_is_a_bad_row(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = pa.array([b"x", b"\xff", None]).cast(pa.binary()).view(pa.string())
    texts = pa.array([b"a", b"b", b"c", b"\xfe"]).cast(pa.binary()).view(pa.string())
    broken = pa.concat_arrays([broken, pa.array(["y"])])
    pq.write_table(pa.table({"text": texts, "id": broken}), tmp_path / "in.parquet")
    for target in ("out.jsonl", "out.parquet"):
        command = ["embed", tmp_path / "in.parquet", tmp_path / target, *MODEL, adapter, "--keep", "id,text"]
        ended = call(capsys, *command)
        assert (ended.status, "row 2: id is not UTF-8" in ended.err) == (1, True), ended.err
        assert call(capsys, *command, "--skip-bad", tmp_path / f"bad-{target}").status == 0
        assert len((tmp_path / f"bad-{target}").read_text().splitlines()) == 2


def test_invalid_csv_headers_are_rejected(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("text,id\na,1\n".encode("utf-16"), b"text,id\ra,1\r", b'"text"x,id\na,1\n', b'"text,id\na,1\n'):
        (tmp_path / "in.csv").write_bytes(content)
        ended = call(capsys, "embed", tmp_path / "in.csv", tmp_path / "out.npy", *MODEL, adapter)
        assert (ended.status, len(ended.err.splitlines())) == (1, 1), ended.err
        assert "in.csv" in ended.err


def test_a_long_csv_line_is_not_truncated(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_bytes(b"text,id\n" + b"a " * 6_000_000 + b"," + b"b" * 6_000_000 + b"\nc,2\n")
    command = ["embed", tmp_path / "in.csv", tmp_path / "out.npy", *MODEL, adapter]
    ended = call(capsys, *command, "--skip-bad", tmp_path / "bad")
    assert ended.status == 0, ended.err
    assert read(tmp_path / "out.npy").shape == (1, 32)
    assert "longer than 16 MiB" in (tmp_path / "bad").read_text()


def test_a_row_that_the_model_rejects_is_a_bad_row(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text(
        json.dumps({"text": "a"}) + "\n" + json.dumps({"text": "b", "how": "long " * 300}) + "\n"
    )
    flags = ["--instruction-column", "how"]
    ended = call(capsys, "embed", tmp_path / "in.jsonl", tmp_path / "out.npy", *MODEL, adapter, *flags)
    assert ended.status == 1
    assert "row 2: instruction leaves no room for the text" in ended.err


def test_an_endless_line_is_a_bad_row(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_bytes(b"a\n" + b"x" * (40 << 20) + b"\nb\n")
    flags = ["--skip-bad", tmp_path / "bad.jsonl"]
    ended = call(capsys, "embed", tmp_path / "in.txt", tmp_path / "out.npy", *MODEL, adapter, *flags)
    assert ended.status == 0, ended.err
    assert json.loads((tmp_path / "bad.jsonl").read_text()) == {
        "row": 2,
        "reason": "is longer than 16 MiB",
        "raw": None,
    }
    assert read(tmp_path / "out.npy").shape == (2, 32)


def test_a_too_long_instruction_ends_the_run_and_blames_no_row(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("a\nb\n")
    flags = ["--instruction", "x" * 600, "--skip-bad", tmp_path / "bad.jsonl"]
    ended = call(capsys, "embed", tmp_path / "in.txt", tmp_path / "out.npy", *MODEL, adapter, *flags)
    assert (ended.status, "--instruction: instruction leaves no room" in ended.err) == (1, True), ended.err
    assert not (tmp_path / "bad.jsonl").read_text()


def test_a_row_may_exceed_the_token_budget(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_text("a" * 60 + "\nb\n")
    flags = ["--max-batch-tokens", 16]
    ended = call(capsys, "embed", tmp_path / "in.txt", tmp_path / "out.npy", *MODEL, adapter, *flags)
    assert ended.status == 0, ended.err
    assert read(tmp_path / "out.npy").shape == (2, 32)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "does not fit into memory: lower --max-batch-tokens"),
        (RuntimeError("no such kernel\nmore"), "the model failed on a batch of 2 tokens: no such kernel"),
    ],
)
def test_a_failed_forward_pass_ends_the_command_with_one_sentence(
    error: Exception, told: str, adapter: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Encoder, "forward", fail)
    (tmp_path / "in.txt").write_text("a")
    ended = call(capsys, "embed", tmp_path / "in.txt", tmp_path / "out.npy", *MODEL, adapter)
    assert ended.status == 1
    assert told in " ".join(ended.err.split())
