"""Every code block of README.md and docs/ is run, or checked as far as possible, or gives a reason to be skipped."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from l2v.app.metrics import Metrics
from l2v.app.settings import Settings
from l2v.models.published import STACKS
from l2v.models.settings import PREFIX
from tests.docs import shell
from tests.docs.blocks import ADDRESS, BLOCKS, REASONS, Block
from tests.docs.running import PRINTED, flags_of, run_python, source
from tests.docs.test_clients import CLIENTS, STORES
from tests.serving import ServerProcess

BIN = Path(sys.executable).parent
LANGUAGES = {"bash", "console", "json", "nginx", "promql", "python", "text", "yaml"}


def of(*languages: str, skipped: bool = False) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages and bool(block.skip) is skipped]


@pytest.fixture(scope="module")
def servers(demo: ServerProcess) -> Iterator[dict[tuple[str, ...], ServerProcess]]:
    """Running servers by their flags: the default one, and others that a page needs."""
    with ExitStack() as stack:
        running = {(): demo}

        class Started(dict[tuple[str, ...], ServerProcess]):
            def __missing__(self, flags: tuple[str, ...]) -> ServerProcess:
                process = stack.enter_context(ServerProcess(*flags))
                process.wait_ready()
                self[flags] = process
                return process

        yield Started(running)


# Blocks that run


@pytest.mark.parametrize("block", of("console"), ids=str)
def test_a_console_block_shows_what_its_commands_print(
    block: Block, servers: dict[tuple[str, ...], ServerProcess], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"localhost:{servers[flags_of(block)].port}"
    shell.lay_out(tmp_path)
    assert block.commands, f"{block}: a console block must have a command after `$ `"
    steady = _without_numbers if block.options.get("varies") == "numbers" else str
    for line, expected in block.commands:
        done = shell.command(line.replace(ADDRESS, address), tmp_path, capsys)
        printed = done.stdout + done.stderr * line.startswith("l2v")
        # A command may fail if the page shows its error.
        assert done.returncode == 0 or "l2v: " in expected, f"{block}: {line}\n{printed}"
        assert alike(steady(printed), steady(expected)), f"{block}: {line}\n{printed}"


def _without_numbers(text: str) -> str:
    """Remove numbers, and the lines about progress, whose count varies."""
    lines = [line for line in text.splitlines() if not re.match(r"l2v: \d+ %", line)]
    return re.sub(r"[\d,]*\d", "0", "\n".join(lines))


@pytest.mark.parametrize("block", [block for block in of("python") if block not in CLIENTS + STORES], ids=str)
def test_a_python_block_runs(block: Block, servers: dict[tuple[str, ...], ServerProcess], tmp_path: Path) -> None:
    address = f"localhost:{servers[flags_of(block)].port}" if ADDRESS in source(block) else ""
    done = run_python(block, address, tmp_path)
    assert done.returncode == 0, f"{block}\n{done.stderr[-3000:]}"
    expected = PRINTED.findall(block.body)
    printed = done.stdout.splitlines()
    assert len(printed) == len(expected), f"{block}: each print needs its output in a comment\n{done.stdout}"
    assert all(alike(got, wanted) for got, (_, wanted) in zip(printed, expected, strict=True)), (
        f"{block}\n{done.stdout}"
    )


def alike(got: str, expected: str) -> bool:
    """Whether two outputs are equal, up to the rounding of numbers by another dtype. `…` matches anything."""
    number = r"-?\d+\.\d+(?:e-?\d+)?"
    pattern = (
        re.escape(" ".join(re.sub(number, "\0", expected).split())).replace("…", ".*").replace("\0", f"({number})")
    )
    match = re.fullmatch(pattern, " ".join(got.split()))
    wanted = re.findall(number, expected)
    return match is not None and all(
        abs(float(a) - float(b)) < 0.02 for a, b in zip(match.groups(), wanted, strict=True)
    )


# Blocks that are checked


@cache
def help_of(subcommand: str) -> str:
    done = subprocess.run([BIN / "l2v", *subcommand.split(), "--help"], check=True, capture_output=True, text=True)
    return done.stdout


def check_l2v(words: list[str]) -> None:
    """Check that the subcommand has the flags, and that `serve` accepts their values."""
    subcommand, *rest = words
    if subcommand == "train":
        subcommand = f"train {rest.pop(0)}"
    flags = [word.partition("=")[0] for word in rest if word.startswith("-")]
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_of(subcommand)))
    assert set(flags) <= known, f"l2v {subcommand} has no {set(flags) - known}"
    if subcommand == "serve":
        given = {}
        while rest:
            flag = rest.pop(0)
            value = rest.pop(0) if rest and not rest[0].startswith("--") else str(not flag.startswith("--no-"))
            given[re.sub("^--(no-)?", "", flag).replace("-", "_")] = value
        check_settings(given)


def check_settings(given: dict[str, str]) -> None:
    assert given.keys() <= Settings.model_fields.keys()
    model = given.get("model", "demo")
    assert model in STACKS or "/" in model, f"{model} is not a short name"
    files = {name for name in given if Settings.model_fields[name].annotation in (Path | None, Path)}
    try:
        Settings(**{name: value for name, value in given.items() if name not in files})  # type: ignore[arg-type]
    except ValidationError as error:
        pytest.fail(str(error))


def check_words(words: list[str]) -> None:
    """Check the flags and settings of a command, which may be one for a container."""
    settings = {}
    while words and re.fullmatch(r"[A-Z][A-Z0-9_]*=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        if name.startswith(PREFIX):
            settings[name.removeprefix(PREFIX).lower()] = value
    check_settings(settings)
    for program in ("serve", "train"):
        if program in words[1:]:  # not words[0]: Ray has a command `serve`
            check_l2v(words[words.index(program) :])


@pytest.mark.parametrize("block", of("bash", skipped=True), ids=str)
def test_shell_that_cannot_run_names_flags_that_exist(block: Block) -> None:
    for words in block.lines:
        check_words(words)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_named_settings_exist(block: Block) -> None:
    # L2V_PUBLISH belongs to the Compose file.
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {f"{PREFIX}PUBLISH"}
    assert set(re.findall(rf"\b{PREFIX}[A-Z_]+", block.body)) <= known


@pytest.mark.parametrize("block", [*of("yaml"), *of("yaml", skipped=True)], ids=str)
def test_yaml_is_valid(block: Block, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all(block.body))
    assert all(documents)
    if "scrape_configs" in documents[0]:
        path = tmp_path / "prometheus.yml"
        path.write_text(block.body)
        try:
            subprocess.run(["promtool", "check", "config", "--syntax-only", path], check=True, capture_output=True)
        except FileNotFoundError:
            reason = "promtool is not installed"
            pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json_is_valid(block: Block) -> None:
    assert json.loads(block.body)


@pytest.mark.parametrize("block", of("promql"), ids=str)
def test_metrics_in_queries_exist(block: Block) -> None:
    ours = {metric.name for metric in Metrics().registry.collect()}
    for name in re.findall(r"\bl2v_\w+", block.body):
        assert re.sub(r"_(total|bucket|sum|count)$", "", name) in ours, name


# Blocks that are skipped


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.skip], ids=str)
def test_a_skipped_block_gives_a_reason(block: Block) -> None:
    assert block.skip in REASONS, f"{block}: {block.skip} is not one of {sorted(REASONS)}"
    assert re.search(REASONS[block.skip], block.body, re.IGNORECASE), (
        f"{block}: nothing in it suggests that it {block.skip}"
    )
    pytest.skip(f"{block} {block.skip}")


def test_the_languages_of_blocks_are_known() -> None:
    assert not [f"{block} {block.language}" for block in BLOCKS if block.language not in LANGUAGES]


def test_most_blocks_run() -> None:
    """Most blocks run: this fails if too many are skipped."""
    counts = Counter(block.skip for block in BLOCKS)
    print(*counts.most_common(), sep="\n")
    assert counts[None] > 3 * (counts.total() - counts[None])
