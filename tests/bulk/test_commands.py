"""`l2v similarity`, `info`, `tokenize`, `completion`, and the help of all commands."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from l2v.models import Encoder, Input
from tests.bulk.shell import call
from tests.serving import LocalServer

MODEL = ("--dtype", "float32", "--model")
COMMANDS = ["serve", "embed", "similarity", "info", "tokenize", "export", "completion"]


def test_similarity_locally_and_through_a_service(
    encoder: Encoder, adapter: Path, server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["similarity", "a cat", "a dog", "[red] stone", "--query-instruction", "Find:", "--json"]
    here = json.loads(call(capsys, *arguments, *MODEL, adapter).out)
    there = json.loads(call(capsys, *arguments, "--url", server.url).out)
    query, *documents = encoder.encode([Input("a cat", "Find:"), Input("a dog"), Input("[red] stone")])
    cosines = {
        text: float(query @ vector / (query @ query * (vector @ vector)) ** 0.5)
        for text, vector in zip(["a dog", "[red] stone"], documents, strict=True)
    }
    for rows in (here, there):
        assert {row["document"]: row["score"] for row in rows} == pytest.approx(cosines, abs=1e-5)
        assert rows[0]["score"] >= rows[1]["score"]
    shown = call(capsys, *arguments[:-1], *MODEL, adapter).out
    assert "[red] stone" in shown
    assert f"{cosines['a dog']:.4f}" in shown


def test_similarity_reports_errors(adapter: Path, server: LocalServer, capsys: pytest.CaptureFixture[str]) -> None:
    here = call(capsys, "similarity", "a", "b", " ", *MODEL, adapter)
    there = call(capsys, "similarity", "a", "b", " ", "--url", server.url)
    assert (here.status, "document 2: text must not be empty" in here.err) == (1, True)
    assert (there.status, "documents[1]" in there.err) == (1, True)
    assert call(capsys, "similarity", "a").status == 2


def test_info_locally_and_through_a_service(
    adapter: Path, encoder: Encoder, server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    here = json.loads(call(capsys, "info", "--json", *MODEL, adapter).out)
    there = json.loads(call(capsys, "info", "--json", "--url", server.url).out)
    assert here.items() >= json.loads(json.dumps(encoder.describe())).items()
    assert there["dimensions"] == here["dimensions"] == 32
    assert "dimensions" in call(capsys, "info", *MODEL, adapter).out


def test_tokenize_shows_what_is_pooled(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tokenize", "cat", "--instruction", "Find:", *MODEL, adapter]
    tokens = json.loads(call(capsys, *arguments, "--json").out)
    assert [token["token"] for token in tokens] == ["<s>", *"Find:", "Ġ", *"cat"]
    assert [token["pooled"] for token in tokens] == [False] * 7 + [True] * 3
    assert "10 tokens, 3 of them pooled" in call(capsys, *arguments).out
    assert call(capsys, "tokenize", " ", *MODEL, adapter).status == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    ended = call(capsys, command, "--help")
    assert ended.status == 0
    assert f"\nExamples:\n    l2v {command}" in ended.out


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_scripts_are_valid(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = call(capsys, "completion", shell).out
    assert all(command in script for command in COMMANDS)
    assert "--skip-bad" in script
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    (tmp_path / "script").write_text(script)
    assert subprocess.run([shell, "-n", tmp_path / "script"], check=False).returncode == 0
