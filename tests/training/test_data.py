"""What cannot be learnt from is named by its file and line."""

import json
from pathlib import Path

import pytest

from training import data
from training.errors import TrainingError


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"query": "a"}', "line 2: no field positive"),
        ('{"query": "a", "positive": 7}', "line 2: positive must be a text"),
        ('{"query": " ", "positive": "b"}', "line 2: query must be a text that is not blank"),
        ('{"query": "a", "positive": "b", "negatives": "c"}', "line 2: negatives must be a list"),
        ('{"query": "a", "positive": "b", "negatives": ["c", ""]}', "line 2: negatives must be a list"),
        ('{"query": "a", "positive": "b", "instruction": 3}', "line 2: instruction must be a text"),
        ('{"query": "a", "positive": "b", "symmetric": "yes"}', "line 2: symmetric must be"),
        ('{"query": "a", "positive": "b", "vectors": [[1.0], [1.0, 2.0]]}', "line 2: vectors must be two"),
        ('{"query": "a", "pos', "line 2: no JSON"),
        ('["a", "b"]', "line 2: no JSON object"),
    ],
)
def test_a_bad_row_is_named(line: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"query": "a", "positive": "b"}\n' + line + "\n")
    with pytest.raises(TrainingError, match=f"{path}, {reason}"):
        data.pairs(str(path))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    empty, binary, folder = tmp_path / "empty.txt", tmp_path / "binary.txt", tmp_path / "folder"
    empty.write_text("\n \n")
    binary.write_bytes(b"caf\xe9")
    folder.mkdir()
    for source, reason in (
        (empty, "holds nothing to learn from"),
        (binary, "is not UTF-8"),
        (folder, "no file of it ends in"),
        (tmp_path / "missing.txt", "neither a file or folder here nor a Hub dataset"),
        ("nobody/nothing", "cannot be fetched"),
    ):
        with pytest.raises(TrainingError, match=f"{source}.*{reason}"):
            data.texts([str(source)], lines=True)


def test_texts_come_from_files_lines_and_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "three\nfour", "other": 1}))
    assert data.texts([str(tmp_path)], lines=True)["text"][:] == ["one", "two", "three\nfour"]
    assert data.texts([str(tmp_path)], lines=False)["text"][:] == ["one\ntwo\n", "three\nfour"]


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    assert data.texts([str(path)], lines=True)["text"][:] == ["one"]
    path.write_text("another")
    assert data.texts([str(path)], lines=True)["text"][:] == ["another"]
