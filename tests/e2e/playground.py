"""The playground in a real browser: Debian's Chromium, headless, driven by Playwright."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.serving import LocalServer, ServerProcess

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
QUERIES = [
    "the cat sits on the mat",
    "how do I reset my password?",
    "share prices fell on Monday",
    "a woman is cooking in the kitchen",
]
DOCUMENTS = [
    "a small cat rests on the carpet",
    "to change your password, open the settings",
    "stock markets dropped on Monday",
    "a lady prepares dinner in the kitchen",
    "dogs are running through a field",
]
INSTRUCTION = "Retrieve semantically similar text:"
PLAIN = {"queries": QUERIES, "documents": DOCUMENTS}
EXAMPLE = PLAIN | {"query_instruction": INSTRUCTION}

Server = LocalServer | ServerProcess


def chromium() -> str:
    """Returns the browser's path. Without it, skips the test, or fails it in CI, which installs the browser."""
    path = shutil.which("chromium")
    if path is None:
        reason = "chromium is not installed (Debian package: chromium)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return path


@pytest.fixture(scope="module")  # longer, and its event loop would disturb other tests
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Playground:
    """The page, with the errors that it logged and the requests that it sent.

    Args:
        context: the browser context.
        server: serves the page.
        fragment: the end of the page's address.
        runs: whether to wait for the results that the page shows by itself.
    """

    def __init__(self, context: BrowserContext, server: Server, fragment: str = "", runs: bool = True) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(20_000)
        expect.set_options(timeout=20_000)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"{server.url}/{fragment}")
        expect(self["#model li"].first).not_to_contain_text("loading")
        if runs:
            self.done()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def __getitem__(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def fill(self, queries: list[str], documents: list[str], instruction: str = "") -> None:
        self["#query-texts"].fill("\n".join(queries))
        self["#document-texts"].fill("\n".join(documents))
        self["#query-instruction"].fill(instruction)

    def run(self) -> None:
        self["#run"].click()
        self.done()

    def done(self) -> None:
        expect(self["#status"]).to_contain_text(" ms")
        expect(self["#results"]).to_have_attribute("aria-busy", "false")

    def scores(self, element: str = "#heatmap") -> list[list[float]]:
        """The scores of a heatmap. Checks that each cell shows its score, rounded."""
        rows = self[f"{element} tbody tr"].evaluate_all(
            "rows => rows.map(row => [...row.querySelectorAll('td')]"
            ".map(cell => [+cell.dataset.score, cell.textContent]))"
        )
        assert all(text.startswith(f"{score + 0:.3f}") for row in rows for score, text in row if abs(score) > 5e-4)
        return [[score for score, _ in row] for row in rows]

    def column(self, number: int) -> list[str]:
        """A column of the table of texts."""
        return self[f"#texts tbody tr > :nth-child({number})"].all_inner_texts()

    def points(self) -> list[list[float]]:
        """The points that the map shows."""
        found: list[list[float]] = self.page.evaluate(
            "Chart.getChart('map').data.datasets.flatMap(({data}) => data.map(({x, y}) => [x, y]))"
        )
        return found

    def violations(self) -> list[str]:
        """What axe finds: names, roles, landmarks, contrast and more."""
        found = Axe().run(self.page)
        return [f"{rule['id']}: {node['html']}" for rule in found.response["violations"] for node in rule["nodes"]]


Open = Callable[..., Playground]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Returns a function that opens a server's page in a new browser context."""
    contexts: list[BrowserContext] = []

    def open_(server: Server, fragment: str = "", runs: bool = True, **options: Any) -> Playground:
        contexts.append(browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options)))
        return Playground(contexts[-1], server, fragment, runs)

    yield open_
    for context in contexts:
        context.close()


def similarity(server: Server, **body: Any) -> dict[str, Any]:
    response = server.client.post("/similarity", json=body)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content
