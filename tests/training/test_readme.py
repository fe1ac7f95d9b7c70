"""The README's way from a folder of texts to a server, with fewer steps."""

from pathlib import Path

from tests.bulk.shell import call
from tests.docs.blocks import BLOCKS, ROOT
from tests.serving import ServerProcess


def test_three_commands_lead_from_texts_to_a_server(tmp_path: Path, monkeypatch: object, capsys: object) -> None:
    (block,) = [block for block in BLOCKS if block.page == "README.md" and "l2v train" in block.body]
    *training, serving = [words[1:] for words in block.lines]
    assert [words[:2] for words in training] == [["train", "mntp"], ["train", "simcse"]]
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)  # type: ignore[attr-defined]
    for words in training:
        shortened = {"--steps": "2", "--batch-size": "4"}
        given = [shortened.get(before, word) for before, word in zip(["", *words], words, strict=False)]
        assert given != words
        ended = call(capsys, *given)  # type: ignore[arg-type]
        assert ended.status in (0, None), ended
        assert f"wrote {words[2]}: serve it with" in ended.out
    assert serving[0] == "serve"
    flags = [str(tmp_path / word) if word.startswith("models/") else word for word in serving[1:]]
    flags[flags.index("--adapters") + 1] = ",".join(str(tmp_path / name) for name in ("my-mntp", "my-encoder"))
    with ServerProcess(*flags) as server:
        server.wait_ready()
        answer = server.client.post("/embed", json={"inputs": "the cat sits on the mat"}).json()
        assert answer["dimensions"] == len(answer["embeddings"][0]) == 256
