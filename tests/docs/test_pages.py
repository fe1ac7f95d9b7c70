"""The pages of docs/: all generated parts are shown, and the site builds without broken links."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from docs import pages
from l2v.app.http.errors import ERROR_CLASSES
from tests.docs.blocks import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
CONFIG = ROOT / "zensical.toml"


def test_every_generated_part_is_used() -> None:
    shown = {name for page in PAGES for name in re.findall(r"^<!-- (\w[\w ]*) -->$", page.read_text(), re.MULTILINE)}
    assert set(pages.PARTS) <= shown


def test_every_page_is_in_the_navigation() -> None:
    nav = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["project"]["nav"]
    groups = [pages for group in nav for pages in group.values()]
    listed = [name for pages in groups for page in pages for name in page.values()]
    assert len(listed) == len(set(listed))
    assert set(listed) == {page.name for page in PAGES}


def test_tables_are_complete() -> None:
    """Each row of a table has as many cells as the header."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for table in re.findall(r"(?:^\|.*\|$\n)+", text, flags=re.MULTILINE):
            cells = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
            assert len(cells) == 1, f"{page.name}: {table}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built outside the checkout with strict link checking."""
    root = tmp_path_factory.mktemp("site")
    shutil.copy(CONFIG, root)
    shutil.copytree(DOCS, root / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    build(root)
    return root / "build" / "site"


def build(root: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--strict"],
        check=False,
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr


def test_the_site_contains_every_page_and_no_code(site: Path) -> None:
    assert {path.name for path in site.iterdir() if path.is_dir()} >= {page.stem for page in PAGES} - {"index"}
    assert not list(site.rglob("*.py"))


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    for path in site.rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:link|script|img|iframe|source)\b[^>]*\b(?:href|src)=\"(?:https?:)?//[^>]*>", html)
        assert "```" not in html, f"{path}: a fence was not parsed"
    for path in site.rglob("*.css"):
        assert not re.findall(r"url\(\"?(?:https?:)?//|@import", path.read_text(encoding="utf-8"))


def test_a_broken_link_breaks_the_build(tmp_path: Path) -> None:
    """Strict link checking fails for a broken link."""
    (tmp_path / "docs").mkdir()
    text = CONFIG.read_text(encoding="utf-8")
    (tmp_path / "zensical.toml").write_text(re.sub(r"nav = \[.*?\n\]\n", "", text, flags=re.DOTALL))
    for link in ("other.md", "index.md#nowhere"):
        (tmp_path / "docs" / "index.md").write_text(f"# Home\n\n[there]({link})\n")
        with pytest.raises(AssertionError, match="does not exist"):
            build(tmp_path)


def test_troubleshooting_lists_every_error_type_and_quotes_messages_of_the_code() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    for row in ERROR_CLASSES.values():
        assert f"| {row.status} | `{row.type}` |" in text, row
    words = "\n".join(strings(ROOT / "app") | strings(ROOT / "models"))
    for message in re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE):
        for part in message.split("…"):
            assert part in words, f"no message contains: {part}"


def strings(folder: Path) -> set[str]:
    """All string literals of a folder's code; implicit concatenation is one literal."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
