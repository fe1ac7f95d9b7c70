"""`l2v similarity`, `info`, `tokenize`, `completion`, and the help of all commands."""

import json
import os
import pty
import shutil
import subprocess
from argparse import ArgumentParser
from pathlib import Path

import pytest

from l2v.app import __version__
from l2v.app.cli import Help
from l2v.models import Encoder, Input, load
from tests.bulk.shell import L2V, call
from tests.models.test_declaration import write_layout
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


def test_similarity_normalizes_before_it_truncates_here_as_in_a_service(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(base, tmp_path / "checkpoint"))
    write_layout(copy, ("Normalize", {}), model={"truncate_dim": 16, "similarity_fn_name": "dot"})
    arguments = ["similarity", "a cat", "a dog", "a stone", "--json"]
    here = json.loads(call(capsys, *arguments, *MODEL, copy).out)
    with LocalServer(load(str(copy), dtype="float32")) as server:
        there = json.loads(call(capsys, *arguments, "--url", server.url).out)
    for mine, other in zip(here, there, strict=True):
        assert mine["document"] == other["document"]
        assert mine["score"] == pytest.approx(other["score"], abs=1e-5)
    # The first 16 of 32 dimensions of vectors of length 1.
    assert all(abs(row["score"]) < 0.95 for row in here)


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


def test_help_has_groups_plain_types_and_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "serve", "--help").out
    assert [line[:-1].lower() for line in shown.splitlines() if line[:1].isalpha() and line.endswith(":")] == [
        "examples", "options", "model", "server", "limits", "access",
    ]  # fmt: skip
    for words in ("--model NAME", "--adapters NAMES", "--request-timeout SECONDS", "--prompts FILE", "--port NUMBER"):
        assert words in shown
    assert "tuple" not in shown
    assert "()" not in shown
    parser = ArgumentParser(prog="l2v", formatter_class=Help, description="l2v[otel]")
    parser.add_argument("--flag", help="needs l2v[train]")
    assert "l2v[otel]" in parser.format_help()
    assert "needs l2v[train]" in parser.format_help()


@pytest.mark.parametrize(
    ("arguments", "usage", "error"),
    [
        (
            ["serve", "--modle", "demo"],
            "serve [flags]",
            "l2v serve: error: there is no flag --modle: did you mean --model?",
        ),
        (["embed", "in.txt"], "embed [flags] INPUT OUTPUT", "the following arguments are required: OUTPUT"),
        (
            ["serve", "--port", "70000"],
            "serve [flags]",
            "l2v: --port (L2V_PORT): Input should be less than or equal to",
        ),
        (["train", "mntp", "out", "--stepz=3"], "train mntp [flags] OUT", "no flag --stepz: did you mean --steps?"),
        (["embedd"], "[flags] COMMAND", "l2v: error: there is no command embedd: did you mean embed?"),
        (["info", "extra"], "info [flags]", "l2v info: error: unexpected argument extra"),
    ],
)
def test_errors_show_the_usage_of_their_command(
    arguments: list[str], usage: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = call(capsys, *arguments)
    assert ended.status == 2
    first, *rest = ended.err.splitlines()
    assert first.lower().startswith(f"usage: l2v {usage.lower()}")
    assert error in "\n".join(rest)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version").out == f"l2v {__version__}\n"


def test_a_terminal_sees_what_is_loaded_before_torch_is_imported(tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    process = subprocess.Popen([L2V, "info", "--model", str(tmp_path)], stderr=terminal, stdout=subprocess.DEVNULL)
    try:
        assert b"l2v: loading" in os.read(main, 1000)
        assert not any("libtorch" in line for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines())
    finally:
        process.kill()
        process.wait()
        os.close(main)
        os.close(terminal)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_scripts_are_valid(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = call(capsys, "completion", shell).out
    assert all(command in script for command in COMMANDS)
    assert "--skip-bad" in script
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    (tmp_path / "script").write_text(script)
    assert subprocess.run([shell, "-n", tmp_path / "script"], check=False).returncode == 0
