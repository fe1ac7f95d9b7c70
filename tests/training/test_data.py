"""Training data: how it is read, and errors that name the file and line."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from l2v.training import data, data_sources
from l2v.training.errors import TrainingError


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"query": "a"}', "line 2: field positive is missing"),
        ('{"query": "a", "positive": 7}', "line 2: positive must be a non-blank string"),
        ('{"query": " ", "positive": "b"}', "line 2: query must be a non-blank string"),
        ('{"query": "a", "positive": "b", "negatives": "c"}', "line 2: negatives must be a list"),
        ('{"query": "a", "positive": "b", "negatives": ["c", ""]}', "line 2: negatives must be a list"),
        ('{"query": "a", "positive": "b", "instruction": 3}', "line 2: instruction must be a string"),
        ('{"query": "a", "positive": "b", "symmetric": "yes"}', "line 2: symmetric must be"),
        ('{"query": "a", "positive": "b", "vectors": [[1.0], [1.0, 2.0]]}', "line 2: vectors must be two"),
        ('{"query": "a", "positive": "b", "vectors": 5}', "line 2: vectors must be two"),
        ('{"query": "a", "positive": "b", "vectors": [1, 2]}', "line 2: vectors must be two"),
        ('{"query": "a", "positive": "b", "vectors": [["x"], ["y"]]}', "line 2: vectors must be two"),
        ('{"query": "a", "positive": "b", "vectors": [[NaN], [1.0]]}', "line 2: vectors must be finite"),
        ('{"query": "\\ud800", "positive": "b"}', "line 2: query contains a lone surrogate"),
        ('{"query": "a", "positive": "b", "negatives": ["\\udfff"]}', "line 2: negatives contains a lone surrogate"),
        ('{"query": "a", "pos', "line 2: not valid JSON"),
        ("[" * 100_000, "line 2: not valid JSON"),
        ('["a", "b"]', "line 2: not a JSON object"),
    ],
)
def test_a_bad_row_is_named(line: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"query": "a", "positive": "b"}\n' + line + "\n")
    with pytest.raises(TrainingError, match=f"{path}, {reason}"):
        data.pairs(str(path))


def test_vectors_must_have_equal_lengths(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"query": "a", "positive": "b", "vectors": [[0.5] * n] * 2} for n in (3, 3, 2)]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(TrainingError, match="line 3: vectors have 2 dimensions, but 3 in earlier rows"):
        data.pairs(str(path))


def test_column_types_do_not_depend_on_the_first_rows(tmp_path: Path) -> None:
    """The first rows have no negatives, so the type of that column cannot be inferred; the file starts with a BOM."""
    path = tmp_path / "pairs.jsonl"
    rows = [{"query": "a", "positive": "b"}] * 1100 + [{"query": "a", "positive": "b", "negatives": ["c"]}]
    path.write_text("\ufeff" + "\n".join(map(json.dumps, rows)))
    assert data.pairs(str(path))["negatives"][-2:] == [[], ["c"]]


def test_a_hash_covers_the_files_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    assert data_sources.digest(str(path)) == sha256(sha256(b"one").digest()).hexdigest()
    before = data_sources.digest(str(tmp_path))
    path.rename(tmp_path / "b.txt")
    assert data_sources.digest(str(tmp_path)) != before
    # Stands for a Hub dataset that has been downloaded to the cache.
    tables = [data.texts([str(tmp_path)], lines=True), data.texts([str(tmp_path / "b.txt")], lines=True)]
    hashes = []
    for table in (tables[0], tables[0], tables[1]):
        monkeypatch.setattr(data_sources, "load_dataset", lambda *args, table=table: DatasetDict(train=table))
        assert data.texts(["owner/name"], lines=True)["text"][:] == ["one"]
        hashes.append(data_sources.digest("owner/name"))
    assert hashes[0] == hashes[1]
    monkeypatch.setattr(data_sources, "load_dataset", lambda *args: DatasetDict(test=tables[0]))
    with pytest.raises(TrainingError, match="owner/name has no `train` split, only test"):
        data.texts(["owner/name"], lines=True)


def test_unreadable_data_is_named(tmp_path: Path) -> None:
    empty, binary, folder = tmp_path / "empty.txt", tmp_path / "binary.txt", tmp_path / "folder"
    empty.write_text("\n \n")
    binary.write_bytes(b"caf\xe9")
    folder.mkdir()
    for source, reason in (
        (empty, "no training data found"),
        (binary, "is not UTF-8"),
        (folder, "contains no file that ends in"),
        (tmp_path / "missing.txt", "neither a local file or folder nor a Hub dataset"),
        ("nobody/nothing", "cannot be fetched"),
    ):
        with pytest.raises(TrainingError, match=f"{source}.*{reason}"):
            data.texts([str(source)], lines=True)


def test_texts_come_from_files_lines_and_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.ndjson").write_text(json.dumps({"text": "three\nfour", "other": 1}))
    assert data.texts([str(tmp_path)], lines=True)["text"][:] == ["one", "two", "three\nfour"]
    assert data.texts([str(tmp_path)], lines=False)["text"][:] == ["one\ntwo\n", "three\nfour"]


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    assert data.texts([str(path)], lines=True)["text"][:] == ["one"]
    path.write_text("another")
    assert data.texts([str(path)], lines=True)["text"][:] == ["another"]


def test_a_hub_dataset_that_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = tmp_path / "newest"
    monkeypatch.setattr(
        data_sources, "load_dataset", lambda *args: DatasetDict(train=Dataset.from_file(newest.read_text()))
    )
    for text in ("one", "another"):
        path = tmp_path / f"{text}.txt"
        path.write_text(f"same\n{text}")
        newest.write_text(data.texts([str(path)], lines=True).cache_files[0]["filename"])
        assert data.texts(["owner/name"], lines=True)["text"][:] == ["same", text]


def test_csv_a_single_negative_and_other_column_names(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('question,answer,negative,symmetric\na,"b, c",d,true\ne,f,g,\n')
    rows = data.pairs(str(path), ("query=question", "positive=answer"))
    assert [(row["query"], row["positive"], row["negatives"], row["symmetric"]) for row in rows] == [
        ("a", "b, c", ["d"], True),
        ("e", "f", ["g"], False),
    ]
    for columns, content, reason in (
        (("query=q",), "question\na\n", "line 2: column q is missing .* the columns are question"),
        ((), "query,positive\na\n", "line 2: the row has more or fewer cells"),
        ((), "query,positive,negative,negatives\na,b,c,d\n", "line 2: negative and negatives exclude each other"),
    ):
        path.write_text(content)
        with pytest.raises(TrainingError, match=reason):
            data.pairs(str(path), columns)
