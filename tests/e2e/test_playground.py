"""The playground in a real browser: Debian's Chromium, headless, driven by Playwright."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

from l2v.models import Encoder
from tests.adapters import Stack
from tests.gated import GatedEncoder
from tests.serving import LocalServer, ServerProcess, wait_for

ROOT = Path(__file__).parents[2]
PLAYGROUND = ROOT / "app" / "playground"
SCREENSHOT = ROOT / "docs" / "assets" / "playground.png"
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
EXAMPLE = {"queries": QUERIES, "documents": DOCUMENTS, "query_instruction": INSTRUCTION}
# Characters that a shell, Python or HTML would each interpret.
TRICKY = """it's "quoted", $HOME `id` $(id) \\ \\n \\' !! %s {} # <b>bold</b> <img src=x> naïve 日本 🐈"""


def chromium() -> str:
    """Returns the browser's path. Without it, skips the test, or fails it in CI, which installs the browser."""
    path = shutil.which("chromium")
    if path is None:
        reason = "chromium is not installed (Debian package: chromium)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


Open = Callable[..., "Playground"]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Returns a function that opens a server's page in a new browser context."""
    contexts: list[BrowserContext] = []

    def open_(server: LocalServer | ServerProcess, **options: Any) -> Playground:
        contexts.append(browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options)))
        return Playground(contexts[-1], server)

    yield open_
    for context in contexts:
        context.close()


class Playground:
    """The page, with the errors that it logged and the requests that it sent."""

    def __init__(self, context: BrowserContext, server: LocalServer | ServerProcess) -> None:
        self.server = server
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(20_000)
        expect.set_options(timeout=20_000)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"{server.url}/")
        expect(self.page.locator("#model li").first).not_to_contain_text("loading")

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

    def scores(self) -> list[list[float]]:
        """The scores of the heatmap. Checks that each cell shows its score, rounded."""
        rows = []
        for row in self["#heatmap tbody tr"].all():
            cells = [
                (float(cell.get_attribute("data-score") or "nan"), cell.inner_text())
                for cell in row.locator("td").all()
            ]
            assert all(text.split()[0] == f"{value:.3f}" for value, text in cells)
            rows.append([value for value, _ in cells])
        return rows

    def column(self, number: int) -> list[str]:
        """A column of the table of texts."""
        return self[f"#texts tbody tr > :nth-child({number})"].all_inner_texts()

    def points(self) -> int:
        """The number of points that Chart.js drew."""
        count: int = self.page.evaluate(
            "Chart.getChart('map').getSortedVisibleDatasetMetas().reduce((sum, meta) => sum + meta.data.length, 0)"
        )
        return count


def similarity(server: LocalServer | ServerProcess, **body: Any) -> dict[str, Any]:
    response = server.client.post("/similarity", json=body)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


def test_files_have_strict_headers_and_an_etag(server: LocalServer) -> None:
    for path, media_type in {
        "/": "text/html",
        "/playground/main.js": "text/javascript",
        "/playground/style.css": "text/css",
    }.items():
        response = server.client.get(path)
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith(media_type)
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        known = {"If-None-Match": response.headers["ETag"]}
        assert server.client.get(path, headers=known).status_code == 304
        assert server.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["nothing.js", "", "../main.py", "%2e%2e/main.py", "..%2fmain.py", "/etc/passwd", "vendor", "vendor/../../main.py"],
)
def test_no_path_leads_out_of_the_known_files(path: str, server: LocalServer) -> None:
    # httpx would normalize the path.
    body = subprocess.run(
        ["curl", "-s", "--path-as-is", f"{server.url}/playground/{path}"], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(body)["error"]["type"] == "not_found"


def test_it_can_be_disabled(encoder: Encoder) -> None:
    with LocalServer(encoder, playground=False) as server:
        assert server.client.get("/").status_code == 404
        assert server.client.get("/playground/main.js").status_code == 404


def test_the_licence_of_the_vendored_library_is_included() -> None:
    library = (PLAYGROUND / "vendor" / "chart.umd.min.js").read_text()
    licences = (PLAYGROUND / "vendor" / "LICENSES.txt").read_text()
    for name, marker in (("chart.js", r"Chart\.js v"), ("@kurkle/color", "@kurkle/color v")):
        version = re.search(marker + r"([\d.]+)", library)
        assert version is not None
        assert f"{name} {version[1]}" in licences
    assert licences.count("Permission is hereby granted") == 2


def test_it_loads_without_errors_and_shows_the_model(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    info = demo.client.get("/info").json()
    facts = [
        info["model"],
        info["dtype"],
        info["device"],
        f"{info['dimensions']} dimensions",
        f"{info['pooling']} pooling",
    ]
    assert page["#model li"].all_inner_texts() == facts
    expect(page["#key-row"]).to_be_hidden()
    expect(page["#outcome"]).to_be_hidden()
    assert page["nav a"].evaluate_all("links => links.map(link => link.pathname)") == ["/docs", "/metrics"]
    assert page.errors == []


def test_the_example_shows_the_scores_of_the_api(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    page.run()
    expected = similarity(demo, **EXAMPLE)
    np.testing.assert_allclose(page.scores(), expected["scores"], atol=1e-6)
    assert page["#heatmap thead th"].all_inner_texts() == [f"D{i + 1}\n{text}" for i, text in enumerate(DOCUMENTS)]
    assert page["#heatmap tbody th"].all_inner_texts() == [f"Q{i + 1}\n{text}" for i, text in enumerate(QUERIES)]
    best = page["#heatmap tbody tr"].evaluate_all("rows => rows.map(row => row.querySelector('.best').cellIndex - 1)")
    assert best == [int(np.argmax(row)) for row in expected["scores"]]
    assert page["#status"].inner_text().startswith("4 × 5 scores in ")
    assert page.errors == []


def test_two_models_are_compared_on_the_same_texts(base: Path, tmp_path: Path, open_page: Open) -> None:
    stack = Stack.make(base, tmp_path)
    with LocalServer(stack.load(), lora_modules=stack.modules) as server:
        page = open_page(server)
        assert page["#model-name option"].all_inner_texts() == ["demo", "law", "code"]
        page["#model-name"].select_option("law")
        expect(page["#curl"]).to_contain_text('"model": "law"')
        page["#other-name"].select_option("code")
        page.run()
        for element, name in (("#heatmap", "law"), ("#other", "code")):
            scores = page[f"{element} td[data-score]"].evaluate_all("cells => cells.map(cell => +cell.dataset.score)")
            np.testing.assert_allclose(scores, np.ravel(similarity(server, **EXAMPLE, model=name)["scores"]), atol=1e-6)
        assert page["#other-title"].inner_text() == "Similarity: code"
        assert _axe(page) == []
        page["#other-name"].select_option("")
        page.run()
        expect(page["#other-section"]).to_be_hidden()
        assert page.errors == []


def test_every_request_goes_to_the_server_itself(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    page.run()
    assert len(page.requests) > 10
    assert [url for url in page.requests if not url.startswith(f"{demo.url}/")] == []


def test_the_map_holds_the_principal_components_of_all_texts(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    page.run()
    inputs: list[Any] = [[INSTRUCTION, text] for text in QUERIES] + DOCUMENTS
    vectors = np.array(demo.client.post("/embed", json={"inputs": inputs}).json()["embeddings"])
    left, values, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    shown = np.array([page.column(4), page.column(5)], dtype=float).T
    for axis in (0, 1):
        expected = left[:, axis] * values[axis]
        sign = np.sign(expected @ shown[:, axis])
        np.testing.assert_allclose(shown[:, axis], sign * expected, atol=2e-3)
    assert page.points() == len(inputs)
    share = round(100 * values[0] ** 2 / (values**2).sum())
    label = page["#map"].get_attribute("aria-label") or ""
    assert label.startswith("Map of 9 texts.")
    assert f"component 1, {share} %" in label


def test_token_counts_and_truncation_are_shown(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    long = "a long text of many words " * 200
    page.fill([QUERIES[0]], [long, DOCUMENTS[0]])
    page.run()
    expected = similarity(demo, queries=[QUERIES[0]], documents=[long.strip(), DOCUMENTS[0]])
    tokens = expected["tokens"]["queries"] + expected["tokens"]["documents"]
    assert page.column(3) == [str(number) for number in tokens]
    assert expected["truncated"] == {"queries": [], "documents": [0]}
    assert ["truncated" in text for text in page.column(2)] == [False, True, False]
    assert page["#tokens-note"].inner_text() == f"{sum(tokens)} tokens, 1 text truncated"
    assert "1 text truncated" in page["#status"].inner_text()


def test_timings_of_both_calls_are_shown(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    page.run()
    rows = {row.split("\t")[0].strip(): row.split("\t")[1:] for row in page["#timings tbody tr"].all_inner_texts()}
    assert set(rows) == {"tokenize", "queue", "forward", "finish", "network, browser", "total"}
    for call in (0, 1):
        parts = [float(values[call]) for name, values in rows.items() if name != "total"]
        assert float(rows["forward"][call]) > 0
        assert sum(parts) == pytest.approx(float(rows["total"][call]), abs=0.05)


def test_without_documents_the_queries_are_compared_with_each_other(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    page["#document-instruction"].fill("has no effect without documents")
    page.fill(QUERIES, ["", "  "])
    page.run()
    np.testing.assert_allclose(page.scores(), similarity(demo, queries=QUERIES)["scores"], atol=1e-6)
    assert page.points() == len(QUERIES)
    best = page["#heatmap tbody tr"].evaluate_all("rows => rows.map(row => row.querySelector('.best').cellIndex - 1)")
    assert all(row != column for row, column in enumerate(best))


def test_texts_are_never_parsed_as_markup(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    page.fill([TRICKY, "<script>document.title = 'no'</script>"], ["<h1>no</h1>"])
    page.run()
    assert page.column(2)[0] == TRICKY
    assert page["h1"].count() == 1
    assert page["main img"].count() == 0
    assert page.errors == []


def test_a_single_text_and_identical_texts_have_a_map(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    for queries in (["alone"], ["twice", "twice"]):
        page.fill(queries, [])
        page.run()
        assert page.column(4) == page.column(5) == ["0.000"] * len(queries)
        assert page.points() == len(queries)
    assert page.errors == []


def test_an_error_names_its_line_and_links_to_it(encoder: Encoder, open_page: Open) -> None:
    with LocalServer(encoder, max_characters=100) as server:
        page = open_page(server)
        page.fill(["short", "", "x" * 101, "short again"], ["also short"])
        page["#run"].click()
        problem = page["#problem"]
        expect(problem).to_contain_text("Queries, line 3: text has 101 characters, at most 100 (max_characters)")
        expect(problem).to_contain_text("422 · invalid · queries[1].text")
        assert problem.get_attribute("role") == "alert"
        expect(page["#query-texts"]).to_have_attribute("aria-invalid", "true")
        problem.get_by_role("button", name="Show in the form").click()
        expect(page["#query-texts"]).to_be_focused()
        assert page.page.evaluate("getSelection().toString()") == "x" * 101
        page.page.keyboard.type("corrected")
        page.page.keyboard.press("Control+Enter")
        page.done()
        expect(problem).to_be_empty()
        expect(page["#query-texts"]).not_to_have_attribute("aria-invalid", "true")
        page["#document-instruction"].fill("y" * 101)
        page["#run"].click()
        expect(problem).to_contain_text("Instruction of the documents: instruction has 101 characters")
        expect(page["#document-instruction"]).to_have_attribute("aria-invalid", "true")


def test_a_form_without_queries_is_reported_without_a_request(server: LocalServer, open_page: Open) -> None:
    page = open_page(server)
    page.fill(["", "   "], ["a document"])
    page["#run"].click()
    expect(page["#problem"]).to_contain_text("Enter at least one query")
    expect(page["#query-texts"]).to_be_focused()
    assert not [url for url in page.requests if url.endswith("/similarity")]


def test_an_unreachable_service_is_reported(server: LocalServer, open_page: Open) -> None:
    page = open_page(server)
    page.page.route("**/similarity", lambda route: route.abort())
    page["#run"].click()
    expect(page["#problem"]).to_contain_text("cannot be reached")
    page.page.unroute("**/similarity")
    page.run()
    expect(page["#problem"]).to_be_empty()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def fill_queue(gated: GatedEncoder, server: LocalServer, pool: ThreadPoolExecutor) -> list[Any]:
    """Closes the gate, then sends one request to occupy the engine and another to fill the queue."""
    before = len(gated.started)
    gated.gate.clear()
    held = [pool.submit(httpx.post, f"{server.url}/embed", json={"inputs": "first"}, timeout=60)]
    wait_for(lambda: len(gated.started) > before, what="a batch at the gate")
    held.append(pool.submit(httpx.post, f"{server.url}/embed", json={"inputs": "second"}, timeout=60))
    wait_for(lambda: server.service.engine.queue_tokens > 0, what="a request in the queue")
    return held


def test_overload_is_reported_and_retried_after_the_countdown(
    gated: GatedEncoder, pool: ThreadPoolExecutor, open_page: Open
) -> None:
    with LocalServer(gated, max_queue_tokens=4) as server:
        page = open_page(server)
        held = fill_queue(gated, server, pool)
        page["#run"].click()
        problem = page["#problem"]
        expect(problem).to_contain_text("The service is busy")
        expect(problem).to_contain_text("429 · overloaded")
        expect(problem).to_contain_text(re.compile(r"Trying again in \d+ seconds?\."))
        assert problem.get_by_role("timer").get_attribute("aria-live") == "off"
        gated.gate.set()
        page.done()
        expect(problem).to_be_empty()
        assert len(page.scores()) == len(QUERIES)
        assert [request.result().status_code for request in held] == [200, 200]


def test_overload_can_be_retried_at_once_or_not_at_all(
    gated: GatedEncoder, pool: ThreadPoolExecutor, open_page: Open
) -> None:
    with LocalServer(gated, max_queue_tokens=4) as server:
        page = open_page(server)
        # The countdown must not end during the test.
        page.page.route("**/similarity", lambda route: _with_retry_after(route, "600"))
        held = fill_queue(gated, server, pool)
        page["#run"].click()
        problem = page["#problem"]
        expect(problem).to_contain_text("Trying again in 600 seconds.")
        problem.get_by_role("button", name="Stop trying").click()
        expect(problem).to_be_empty()
        expect(page["#run"]).to_be_focused()
        page["#run"].click()
        expect(problem).to_contain_text("The service is busy")
        gated.gate.set()
        assert [request.result().status_code for request in held] == [200, 200]
        problem.get_by_role("button", name="Try again now").click()
        page.done()
        expect(problem).to_be_empty()
        expect(page["#run"]).to_be_focused()


def _with_retry_after(route: Any, seconds: str) -> None:
    response = route.fetch()
    route.fulfill(response=response, headers=response.headers | {"retry-after": seconds})


def test_a_running_request_is_not_sent_twice_and_can_be_cancelled(gated: GatedEncoder, open_page: Open) -> None:
    with LocalServer(gated) as server:
        page = open_page(server)
        gated.gate.clear()
        page["#run"].click()
        expect(page["#results"]).to_have_attribute("aria-busy", "true")
        expect(page["#run"]).to_be_disabled()
        page.page.keyboard.press("Control+Enter")
        page["#cancel"].click()
        expect(page["#status"]).to_have_text("Cancelled.")
        expect(page["#results"]).to_have_attribute("aria-busy", "false")
        expect(page["#run"]).to_be_enabled()
        assert len([url for url in page.requests if url.endswith("/similarity")]) == 1
        wait_for(lambda: server.service.in_flight == 0, what="the permit to be released")
        gated.gate.set()


def test_the_page_prompts_for_a_required_key_and_uses_it(encoder: Encoder, open_page: Open) -> None:
    with LocalServer(encoder, api_keys="open-sesame") as server:
        page = open_page(server)
        expect(page["#key-row"]).to_be_visible()  # because /info returned 401
        page["#run"].click()
        expect(page["#problem"]).to_contain_text("requires an API key")
        expect(page["#key"]).to_be_focused()
        page.page.keyboard.type("wrong")
        page.page.keyboard.press("Enter")
        expect(page["#problem"]).to_contain_text("401 · unauthorized")
        page["#key"].fill("open-sesame")
        page.page.keyboard.press("Enter")
        page.done()
        assert len(page.scores()) == len(QUERIES)
        expect(page["#model li"].nth(1)).to_have_text("float32")
        # Neither a snippet nor any storage holds the key.
        expect(page["#curl"]).to_contain_text("Authorization: Bearer $L2V_API_KEY")
        assert "open-sesame" not in page["body"].inner_text()
        assert page.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        for name, run in (("curl", shell), ("python", interpreter)):
            scores = run(page[f"#{name}"].inner_text(), L2V_API_KEY="open-sesame")
            np.testing.assert_allclose(scores, page.scores(), atol=1e-6)


def shell(command: str, **environment: str) -> Any:
    ended = subprocess.run(["sh", "-c", command], capture_output=True, check=True, env=os.environ | environment)
    return json.loads(ended.stdout)["scores"]


def interpreter(code: str, **environment: str) -> Any:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=os.environ | environment)
    return ast.literal_eval(ended.stdout.decode())


@pytest.mark.parametrize(("name", "run"), [("curl", shell), ("python", interpreter)])
@pytest.mark.parametrize("clipboard", ["available", "missing, as without TLS"])
def test_copied_requests_run_and_return_the_same_scores(
    name: str, run: Callable[..., Any], clipboard: str, demo: ServerProcess, open_page: Open
) -> None:
    page = open_page(demo, permissions=["clipboard-read", "clipboard-write"])
    if clipboard != "available":
        page.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.fill([TRICKY, "plain"], ["'", '"', "\\", TRICKY], instruction="it's an instruction: $1")
    page.run()
    shown = page.scores()
    page[f"[data-copy={name}]"].click()
    expect(page["#copied"]).to_contain_text("copied")
    expect(page[f"[data-copy={name}]"]).to_be_focused()
    page["#query-texts"].fill("")
    page["#query-texts"].press("Control+V")
    np.testing.assert_allclose(run(page["#query-texts"].input_value()), shown, atol=1e-6)


def test_it_works_with_the_keyboard_alone(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    keyboard = page.page.keyboard
    order = []
    for _ in range(13):
        keyboard.press("Tab")
        order.append(page.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        outline = page.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", f"no visible focus on {order[-1]}"
    assert order == [
        "Skip to the texts", "Skip to the results", "API docs", "Metrics",
        "query-instruction", "query-texts", "document-instruction", "document-texts", "run",
        "Copy the curl command", "curl", "Copy the Python code", "python",
    ]  # fmt: skip
    page["#query-texts"].focus()
    keyboard.press("Control+Enter")
    page.done()
    expect(page["#query-texts"]).to_be_focused()
    page["#run"].focus()
    keyboard.press("Enter")
    page.done()
    expect(page["#run"]).to_be_focused()
    keyboard.press("Tab")
    expect(page["#heatmap"]).to_be_focused()
    page["a.skip"].first.focus()
    keyboard.press("Enter")
    expect(page["#query-texts"]).to_be_focused()
    page["a.skip"].last.focus()
    keyboard.press("Enter")
    expect(page["#results"]).to_be_focused()


def test_screen_readers_find_each_table_by_its_name(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    page.run()
    for name in (
        "Cosine similarity of each query with each document.",
        "Each text with its token count and its coordinates on the map.",
        "Milliseconds per call and stage.",
    ):
        expect(page.page.get_by_role("table", name=name)).to_be_visible()
    expect(page.page.get_by_role("group", name="Queries").get_by_label("Texts")).to_have_value("\n".join(QUERIES))
    expect(page.page.get_by_role("img", name="Map of 9 texts.")).to_be_visible()
    expect(page.page.get_by_role("status").first).to_have_attribute("aria-live", "polite")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violations(scheme: str, encoder: Encoder, open_page: Open) -> None:
    """Names, roles, landmarks, contrast and more: before a run, after an error, and after a run."""
    with LocalServer(encoder, api_keys="open-sesame", max_characters=100) as server:
        page = open_page(server, color_scheme=scheme)
        states = [_axe(page)]
        page["#key"].fill("open-sesame")
        page.fill(["a cat", "x" * 101], DOCUMENTS)
        page["#run"].click()
        expect(page["#problem"]).to_contain_text("Queries, line 2")
        states.append(_axe(page))
        page.fill(QUERIES, ["word " * 19, *DOCUMENTS])
        page.run()
        states.append(_axe(page))
    assert states == [[], [], []]


def _axe(page: Playground) -> list[str]:
    found = Axe().run(page.page)
    return [f"{rule['id']}: {node['html']}" for rule in found.response["violations"] for node in rule["nodes"]]


def test_light_and_dark_differ(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    page.run()
    pictures = []
    for scheme in ("light", "dark"):
        page.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        pictures.append(page["#outcome"].screenshot())
    assert pictures[0] != pictures[1]
    # A script redraws the heatmap and the map; the style sheet does the rest.
    cell = page["#heatmap tbody td"].first
    dark = cell.evaluate("cell => cell.style.backgroundColor")
    page.page.emulate_media(color_scheme="light")
    expect(cell).not_to_have_css("background-color", dark)
    assert page.errors == []


@pytest.mark.parametrize("width", [320, 768])
def test_narrow_windows_do_not_scroll_sideways(width: int, demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo, viewport={"width": width, "height": 800})
    page.fill([TRICKY * 3, "a-long-word-" * 20], [TRICKY] * 12)
    page.run()
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_large_matrix_is_shown_in_part(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    texts = [f"text number {number}" for number in range(70)]
    page.fill(texts, texts[:3])
    page.run()
    assert page["#heatmap tbody tr"].count() == 60
    assert page["#heatmap-note"].inner_text() == "The first 60 × 3 of 70 × 3 scores."
    assert page.points() == 73
    assert len(page.column(3)) == 73


def test_the_screenshot_in_the_readme_is_small() -> None:
    assert SCREENSHOT.stat().st_size <= 300_000


def main() -> None:
    """Takes the screenshot for the README: `python -m tests.e2e.test_playground`."""
    with ServerProcess() as server, sync_playwright() as playwright:
        server.wait_ready()
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = Playground(browser.new_context(viewport={"width": 1280, "height": 800}), server)
        for _ in range(3):  # the first two warm up
            page["#query-texts"].press("Control+Enter")
            expect(page["#results"]).to_have_attribute("aria-busy", "false")
            page.done()
        page.page.mouse.move(0, 0)
        page["#query-texts"].evaluate("field => field.blur()")
        bottom = page["#timings"].evaluate("element => element.closest('.card').getBoundingClientRect().bottom")
        SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
        clip = {"x": 0, "y": 0, "width": 1280, "height": bottom + 16}
        page.page.screenshot(path=SCREENSHOT, full_page=True, clip=clip)  # type: ignore[arg-type]
        browser.close()


if __name__ == "__main__":
    main()
