"""The playground in a browser: its form, its requests, and how it is to use."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from l2v.models import Encoder
from tests.adapters import Stack
from tests.e2e.playground import DOCUMENTS, EXAMPLE, INSTRUCTION, QUERIES, Open, similarity
from tests.serving import LocalServer, ServerProcess

# Characters that a shell, Python or HTML would each interpret.
TRICKY = """it's "quoted", $HOME `id` $(id) \\ \\n \\' !! %s {} # <b>bold</b> <img src=x> naïve 日本 🐈"""


def test_it_runs_on_load_with_examples_and_sends_requests_to_its_server_alone(
    demo: ServerProcess, open_page: Open
) -> None:
    page = open_page(demo)
    info = demo.client.get("/info").json()
    size, pooling = f"{info['dimensions']} dimensions", f"{info['pooling']} pooling"
    assert page["#model li"].all_inner_texts() == [info["model"], info["dtype"], info["device"], size, pooling]
    assert (
        page[".lead"].inner_text() == "See which texts mean the same to the model, with your instruction and without."
    )
    assert page[".lead"].bounding_box()["height"] < 30  # type: ignore[index]  # one line
    np.testing.assert_allclose(page.scores(), similarity(demo, **EXAMPLE)["scores"], atol=1e-6)
    expect(page["#key-row"]).to_be_hidden()
    links = page["nav a"].evaluate_all("links => links.map(link => link.pathname)")
    assert links == ["/docs", "/metrics", "/playground/main.js"]
    assert [demo.client.get(link).status_code for link in links] == [200, 200, 200]
    assert len(page.requests) > 20
    assert [url for url in page.requests if not url.startswith(f"{demo.url}/")] == []
    assert page.errors == []


def test_two_models_are_compared_on_the_same_texts(base: Path, tmp_path: Path, open_page: Open) -> None:
    stack = Stack.make(base, tmp_path)
    with LocalServer(stack.load(), lora_modules=stack.modules) as server:
        page = open_page(server)
        assert page["#model-name option"].all_inner_texts() == ["demo", "law", "code"]
        page["#model-name"].select_option("law")
        expect(page["#similarity"]).to_contain_text('"model": "law"')
        page["#other-name"].select_option("code")
        expect(page["#stale"]).to_be_visible()
        page.run()
        for element, name in (("#heatmap", "law"), ("#other", "code")):
            np.testing.assert_allclose(
                page.scores(element), similarity(server, **EXAMPLE, model=name)["scores"], atol=1e-6
            )
        assert page["#heatmap-title"].inner_text() == "Similarity law"
        assert page["#other-title"].inner_text() == "Similarity code"
        assert page.violations() == []
        page["#other-name"].select_option("")
        page.run()
        assert page["#other-title"].inner_text() == "Similarity without instruction"
        assert page.errors == []


def test_texts_survive_a_reload_and_travel_in_a_link(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo, permissions=["clipboard-read", "clipboard-write"])
    page.fill([TRICKY, "plain"], ["a document"], instruction="Find:")
    page.page.reload()
    page.done()
    assert page["#query-texts"].input_value() == f"{TRICKY}\nplain"
    page["#link"].click()
    expect(page["#linked"]).to_have_text("Link copied")
    link = page.page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(f"{demo.url}/#inputs=")
    other = open_page(demo, link.removeprefix(f"{demo.url}/"))
    assert other["#query-texts"].input_value() == f"{TRICKY}\nplain"
    assert other["#query-instruction"].input_value() == "Find:"
    assert len(other.scores()) == 2
    # The server sees no part of the link, and later changes survive a reload.
    assert not any("inputs=" in url for url in other.requests)
    assert other.page.url == f"{demo.url}/"
    other["#query-texts"].fill("changed")
    other.page.reload()
    assert other["#query-texts"].input_value() == "changed"
    other["#examples"].click()
    assert other["#query-texts"].input_value() == "\n".join(QUERIES)
    broken = open_page(demo, "#inputs=!")
    assert broken["#query-texts"].input_value() == "\n".join(QUERIES)
    assert page.errors == other.errors == broken.errors == []


def test_results_of_earlier_inputs_are_marked(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    expect(page["#stale"]).to_be_hidden()
    page["#query-instruction"].fill("Other:")
    expect(page["#stale"]).to_contain_text("The inputs have changed since these results.")
    page["#query-instruction"].fill(INSTRUCTION)
    expect(page["#stale"]).to_be_hidden()
    page["#document-texts"].fill("another")
    page["#again"].click()
    expect(page["#stale"]).to_be_hidden()
    page.done()
    assert page["#heatmap thead th"].all_inner_texts() == ["D1\nanother"]


def shell(command: str, **environment: str) -> Any:
    ended = subprocess.run(["sh", "-c", command], capture_output=True, check=True, env=os.environ | environment)
    return json.loads(ended.stdout)


def interpreter(code: str, **environment: str) -> Any:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=os.environ | environment)
    return ast.literal_eval(ended.stdout.decode())


@pytest.mark.parametrize("clipboard", ["available", "missing, as without TLS"])
def test_copied_requests_run_and_return_what_is_shown(clipboard: str, demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo, permissions=["clipboard-read", "clipboard-write"])
    if clipboard != "available":
        page.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    queries, documents = [TRICKY, "plain"], ["'", '"', "\\", TRICKY]
    page.fill(queries, documents, instruction="it's an instruction: $1")
    page.run()
    shown, points = page.scores(), len(page.points())
    codes = {}
    for language in ("curl", "python"):
        page[f"label[for=language-{language}]"].click()
        for name in ("similarity", "embed"):
            page[f"[data-copy={name}]"].click()
            expect(page["#copied"]).to_contain_text(f"/{name} copied")
            expect(page[f"[data-copy={name}]"]).to_be_focused()
            codes[language, name] = page[f"#{name}"].inner_text()
    page["#query-texts"].fill("")
    page["#query-texts"].press("Control+V")
    assert page["#query-texts"].input_value().strip() == codes["python", "embed"].strip()
    np.testing.assert_allclose(shell(codes["curl", "similarity"])["scores"], shown, atol=1e-6)
    np.testing.assert_allclose(interpreter(codes["python", "similarity"]), shown, atol=1e-6)
    if clipboard == "available":
        vectors = np.array(shell(codes["curl", "embed"])["embeddings"])
        assert len(vectors) == points == len(queries) + len(documents)
        np.testing.assert_allclose(vectors[:2] @ vectors[2:].T, shown, atol=1e-5)
        np.testing.assert_allclose(interpreter(codes["python", "embed"]), vectors, atol=1e-5)


def test_texts_are_never_parsed_as_markup(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    page.fill([TRICKY, "<script>document.title = 'no'</script>"], ["<h1>no</h1>"])
    page.run()
    assert page["#texts .tokens"].first.get_attribute("title") == TRICKY
    assert page["h1"].count() == 1
    assert page["main img"].count() == 0
    page["label[for=mode-search]"].click()
    page["#document-texts"].fill("<h1>no</h1>")
    page.run()
    assert page["#heatmap li .found"].all_inner_texts() == ["<h1>no</h1>"]
    assert page.errors == []


def test_it_works_with_the_keyboard_alone(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    keyboard = page.page.keyboard
    order = []
    for _ in range(15):
        keyboard.press("Tab")
        order.append(page.page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        outline = page.page.evaluate(
            "[document.activeElement, document.activeElement.nextElementSibling ?? document.body]"
            ".map(element => getComputedStyle(element).outlineStyle)"
        )
        assert "solid" in outline, f"no visible focus on {order[-1]}"
    assert order == [
        "Skip to the texts", "Skip to the results", "API docs", "Metrics", "Source", "mode-compare", "link", "examples",
        "query-instruction", "query-texts", "document-instruction", "document-texts", "document-file", "run", "heatmap",
    ]  # fmt: skip
    page["#query-texts"].focus()
    keyboard.press("Control+Enter")
    page.done()
    expect(page["#query-texts"]).to_be_focused()
    page["#run"].focus()
    keyboard.press("Enter")
    page.done()
    expect(page["#run"]).to_be_focused()
    for link, target in (("first", "#query-texts"), ("last", "#results")):
        getattr(page["a.skip"], link).focus()
        keyboard.press("Enter")
        expect(page[target]).to_be_focused()


def test_screen_readers_find_each_part_by_its_name(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    for name in (
        "Cosine similarity of each query with each document.",
        "Each text with its token count and its coordinates on the map.",
        "Milliseconds per call and stage.",
    ):
        expect(page.page.get_by_role("table", name=name).first).to_be_visible()
    texts = page.page.get_by_role("group", name="Queries").get_by_label("Texts")
    expect(texts).to_have_value("\n".join(QUERIES))
    expect(page.page.get_by_role("img", name="Map of 9 texts.")).to_be_visible()
    expect(page["#status"]).to_have_attribute("aria-live", "polite")


def test_axe_finds_no_violations(encoder: Encoder, open_page: Open) -> None:
    """Before a run, after an error beside stale results, with an overview, and with tables and rankings in the dark."""
    with LocalServer(encoder, api_keys="open-sesame", max_characters=100) as server:
        page = open_page(server, runs=False)
        states = [page.violations()]
        page["#key"].fill("open-sesame")
        page["#key"].blur()
        page.done()
        page.fill(["a cat", "x" * 101], DOCUMENTS)
        page["#run"].click()
        expect(page["#problem"]).to_contain_text("Queries, line 2")
        states.append(page.violations())
        page.fill(QUERIES * 7, QUERIES[:2], instruction="Find:")
        page.run()
        states.append(page.violations())
        page.page.emulate_media(color_scheme="dark")
        page.fill(QUERIES[:2], ["word " * 19, *DOCUMENTS[:2]], instruction="Find:")
        page.run()
        states.append(page.violations())
        page["label[for=mode-search]"].click()
        page.done()
        states.append(page.violations())
    assert states == [[]] * 5


def test_light_and_dark_differ(demo: ServerProcess, open_page: Open) -> None:
    page = open_page(demo)
    # A script redraws the heatmap and the map; the style sheet does the rest.
    cell, colors = page["#heatmap tbody td"].first, []
    for scheme in ("light", "dark"):
        page.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        if colors:
            expect(cell).not_to_have_css("background-color", colors[0][0])
        page_color = page["body"].evaluate("body => getComputedStyle(body).backgroundColor")
        point = page.page.evaluate("Chart.getChart('map').data.datasets[0].backgroundColor")
        colors.append((cell.evaluate("cell => cell.style.backgroundColor"), page_color, point))
    assert all(light != dark for light, dark in zip(*colors, strict=True))
    assert page.errors == []


@pytest.mark.parametrize("width", [320, 768])
def test_on_a_phone_the_button_is_in_reach_and_nothing_scrolls_sideways(
    width: int, demo: ServerProcess, open_page: Open
) -> None:
    page = open_page(demo, viewport={"width": width, "height": 700})
    page.fill([TRICKY * 3, "a-long-word-" * 20], [TRICKY] * 12)
    page.run()
    for position in (0, 600, 1e6):
        page.page.evaluate("top => scrollTo(0, top)", position)
        expect(page["#run"]).to_be_in_viewport(ratio=1)
        page["#run"].click(trial=True)  # nothing covers it
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    footer, bar = page["footer p, .actions"].evaluate_all("all => all.map(one => one.getBoundingClientRect())")[::-1]
    assert footer["bottom"] <= bar["top"]  # the bar hides nothing for ever
